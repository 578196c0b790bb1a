"""What is wrong with the YAML files of a configuration that Hydra cannot compose, with their paths."""

from __future__ import annotations

from collections.abc import Mapping

import yaml  # type: ignore[import-untyped]

from pipeline.common.causes import causes
from pipeline.config.choices import file_of
from pipeline.config.defaults_lists import defaults_problem, invalid_yaml
from pipeline.config.search_path import CONF


def composition_problem(error: Exception, chosen: Mapping[str, str]) -> str:
    """Return a sentence about a configuration with the choices ``chosen``, by group, that raised ``error``."""
    for group, choice in chosen.items():
        if problem := defaults_problem(group, choice):
            return problem
    if isinstance(error, yaml.YAMLError):
        return invalid_yaml(error)
    files = [path for group, choice in chosen.items() if (path := file_of(group, choice))]
    own = [str(path) for path in files if CONF not in path.parents]
    return f"the configuration cannot be composed: {_said(error)}; correct {' or '.join(own) or 'the YAML file'}"


def _said(error: BaseException) -> str:
    """Return the first sentence of an error, or of its first cause that has a text."""
    for cause in causes(error):
        first, *more = [*str(cause).splitlines(), ""]
        if first:
            return f"{first} {more[0]}".rstrip(". ") if first.endswith(":") else first.rstrip(".")
    return type(error).__name__
