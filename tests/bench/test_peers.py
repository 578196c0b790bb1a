"""The comparison with llm-compressor, which has an environment of its own."""

from __future__ import annotations

from pipeline.bench.__main__ import main


def test_without_its_environment_the_peer_is_skipped_with_the_way_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--only", "peers", "model=random", f"outputs={tmp_path}"]) == 0
    said = capsys.readouterr()
    assert "make peers" in said.err and not said.out
