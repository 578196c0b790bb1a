"""lm-eval's own files of a job, as its ``--output_path`` and ``--log_samples`` write them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pipeline.evaluate.gen_kwargs import generation
from pipeline.evaluate.results import LM_EVAL, read_lines
from pipeline.results.jobs import Refused
from pipeline.results.samples import DENSE_EVALUATION, evaluation_of
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.records import JobRecord
from pipeline.tables.job_columns import DENSE, label_of


def write_lm_eval(record: JobRecord, store: Store, role: str, target: Path) -> Path:
    """Write ``results_TIME.json`` and ``samples_TASK_TIME.jsonl`` of an evaluation below the folder ``target``.

    They lie in a folder named after the model, what was done to it, and the beginning of the evaluation's key. TIME is
    when it ended: written again, the files are the same. Returns the path of the results. Raises Refused for an
    evaluation that lm-eval did not make, or whose account of it was not kept.
    """
    artifact = evaluation_of(record, store, role)
    if not artifact.file(LM_EVAL).is_file():
        raise Refused(
            f"{record.artifacts[role]} holds no account of lm-eval's: it is of retrieval, or of an earlier version; in "
            "the latter case remove the jobs that use it and run them again"
        )
    manifest = artifact.manifest()
    name = f"{record.model} {DENSE if role == DENSE_EVALUATION else label_of(record)}"
    folder = target / _name_of_file(f"{name} {artifact.key[:8]}")
    folder.mkdir(parents=True, exist_ok=True)
    time = datetime.fromisoformat(str(manifest["finished"])).replace(tzinfo=None).isoformat().replace(":", "-")
    lines = read_lines(artifact.file(LM_EVAL))
    results = next(lines)
    hashes: dict[str, list[str]] = {}
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {}
        for sample in lines:
            task = sample.pop("task")
            if task not in files:
                path = folder / f"samples_{task}_{time}.jsonl"
                files[task] = stack.enter_context(path.open("w", encoding="utf-8"))
            files[task].write(json.dumps(sample, ensure_ascii=False) + "\n")
            hashes.setdefault(task, []).append("".join(sample[f"{what}_hash"] for what in ("doc", "prompt", "target")))
    results |= _about(record, artifact, name, results.pop("chat_template"))
    results["task_hashes"] = {task: _sha("".join(own)) for task, own in hashes.items()}
    path = folder / f"results_{time}.json"
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def _about(record: JobRecord, artifact: Artifact, name: str, template: Any) -> dict[str, Any]:
    """Return what lm-eval says of the model, the settings and the machine."""
    manifest, config = artifact.manifest(), record.config
    origin: Mapping[str, Any] = manifest.get("origin") or {}
    packages: Mapping[str, str] = origin.get("packages") or {}
    instruction, chat = config.get("task.system_instruction"), bool(config.get("task.chat_template"))
    turns = config.get("task.fewshot_as_multiturn")
    seconds = (manifest.get("cost") or {}).get("seconds")
    own = {key.removeprefix("task.gen_kwargs."): config[key] for key in config if key.startswith("task.gen_kwargs.")}
    return {
        "config": {
            "model": "hf",
            "model_args": {"pretrained": record.model, "dtype": record.dtype, "variant": name},
            "model_dtype": record.dtype,
            "model_revision": record.model_revision,
            "model_num_parameters": record.parameters,
            "batch_size": config.get("task.batch_size"),
            "batch_sizes": [],
            "device": None,
            "use_cache": None,
            "limit": config.get("task.limit"),
            "gen_kwargs": generation(own or config.get("task.gen_kwargs")) or None,
            **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), record.seed),
            "pruning": {"job": record.job, "label": label_of(record), "settings": record.settings},
        },
        "git_hash": origin.get("commit"),
        "date": datetime.fromisoformat(str(manifest["finished"])).timestamp(),
        "pretty_env_info": ", ".join(f"{package} {version}" for package, version in packages.items()),
        "transformers_version": packages.get("transformers"),
        "lm_eval_version": packages.get("lm_eval"),
        "model_source": "hf",
        "model_name": name,
        "model_name_sanitized": _name_of_file(name),
        "system_instruction": instruction,
        "system_instruction_sha": _sha(instruction) if instruction else None,
        "fewshot_as_multiturn": chat if turns is None else turns,
        "chat_template": template if chat else None,
        "chat_template_sha": _sha(template) if chat and template else None,
        "total_evaluation_time_seconds": None if seconds is None else str(seconds),
    }


def _name_of_file(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
