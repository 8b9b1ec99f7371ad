"""Which base an adapter is for: the one that the user gives, else the one it was trained on."""

from __future__ import annotations

from pathlib import Path

from axtune.checkpoint import locate
from axtune.checkpoint.locate import ADAPTER_CONFIG, Checkpoint, read_json
from axtune.checkpoint.provenance import find_original, unquantized
from axtune.checkpoint.run_dir import Run, open_run, require_whole
from axtune.config.paths import is_run
from axtune.errors import AxtuneError, CheckpointError

_REMEDY = "Give it with --base (verify: --against)."


def run_of(path: Path) -> Run | None:
    """The run that a folder is, or that an adapter's folder lies in; None when there is none.

    Raises:
        AxtuneError: When the run saved no adapter, or lacks a file.
    """
    require_whole(path)
    if is_run(path):
        return open_run(path)
    if (path / ADAPTER_CONFIG).is_file():
        for folder in list(path.absolute().parents)[:2]:
            if is_run(folder):
                run = open_run(folder)
                return Run(run.path, path, run.recipe, run.manifest)
    return None


def find_base(
    given: str | None, run: Run | None, adapter: Path, *, served: bool = False
) -> Checkpoint:
    """The 16-bit base that an adapter is for, with its weights.

    Args:
        given: By the user, as `axtune.checkpoint.locate.find` takes it, or a folder quantised from
            the base, which stands for its original.
        run: That trained the adapter, when it is known.
        adapter: The adapter's folder; it is asked when neither of the others tells.
        served: Whether a folder in 4 bit that the adapter itself names is taken as it is: to be
            asked, as it was trained or is served.

    Raises:
        AxtuneError: When nothing says which base it is, or it cannot be found.
    """
    if given is not None:
        trained_on = run.manifest["base"] if run else {}
        same = given == trained_on.get("name")
        return unquantized(locate.find(given, revision=trained_on["revision"] if same else None))
    if run:
        base = run.manifest["base"]
        if "quantized" in base:
            return find_original(base["name"], base["revision"], base["quantized"]["name"])
        return locate.find(base["name"], revision=base["revision"])
    config = read_json(adapter / ADAPTER_CONFIG)
    name = config.get("base_model_name_or_path")
    if not name:
        raise AxtuneError(f"{adapter} does not say which base it is for.", _REMEDY)
    try:
        found = locate.find(str(name), revision=config.get("revision"))
        return found if served else unquantized(found)
    except CheckpointError as error:
        raise CheckpointError(
            f"The base that {adapter} names cannot be found: {error.found}",
            f"{error.remedy} Or give the base with --base (verify: --against).".strip(),
        ) from None
