"""The local files and folders that a recipe names, and those of them that are not there.

Recipes are looked at as plain values, before they are known to be valid, so that a missing file is
reported together with every other fault. Only this machine is looked at, never the Hub.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from axtune.config.splits import AUTO, HELD_OUT, Splits, of_split
from axtune.errors import AxtuneError

TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
# What axtune reads; texts also with one of `COMPRESSED` behind.
SUFFIXES = (*TEXTS, ".parquet", ".arrow")
# Documents, each of which is one row: what `axtune.documents` reads, and other texts as they are.
DOCUMENTS = (
    *(".pdf", ".docx", ".hwpx", ".hwp", ".xlsx", ".pptx", ".html", ".htm", ".xhtml"),
    *(".txt", ".text", ".md", ".markdown", ".log"),
)
PLAIN = (
    *(".rst", ".tex", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".properties"),
    *(".py", ".java", ".kt", ".scala", ".js", ".jsx", ".ts", ".tsx", ".vue", ".css", ".php", ".rb"),
    *(".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".swift", ".r", ".sql", ".sh"),
)
HUB = "hf:"  # such a source is a data set of the Hugging Face Hub, and no path

# What makes a folder that of a run; beside them are metrics, checkpoints and answers.
RUN_FILES = ("manifest.json", "recipe.yaml")
_STAGES = "stages.json"  # beside the runs of a recipe of stages

KeyPath = tuple[str | int, ...]  # where a value stands in a recipe: keys, and indices of lists

_CODE = "bad-path"
READ = f"{', '.join(SUFFIXES)}; texts also as {', '.join(COMPRESSED)}"
READ_AS_DOCUMENTS = ".pdf, .docx, .hwpx, .txt, .md and other documents, code and logs"
_ARCHIVES = (*COMPRESSED, ".zip", ".7z", ".rar", ".tar", ".tgz")

# Of `datasets.save_to_disk`, and of the card of a Hub data set: what says of a folder how it is
# made.
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_ABOUT = frozenset(("dataset_info.json", "dataset_infos.json", _SAVED, _SAVED_SPLITS))
# What lies beside data and is none: documents, programs, settings, pictures of the card.
_NO_DATA = frozenset(
    (
        *("", ".md", ".rst", ".html", ".py", ".ipynb", ".sh", ".yaml", ".yml", ".toml"),
        *(".lock", ".log", ".png", ".jpg", ".jpeg", ".svg", ".gif"),
    )
)


def expanded(path: str) -> str:
    """A path of a recipe with ``~`` as the home folder that it stands for; others as they are.

    Every key of a recipe that names a file or a folder goes through here as the recipe is
    validated, and is the same path to all that read it.

    Raises:
        AxtuneError: When it names the home of a user whom there is not, or is not UTF-8.
    """
    require_text(path)
    if not path.startswith("~"):
        return path
    try:
        home = str(Path(path).expanduser())
        require_text(home)
        return home
    except RuntimeError:
        raise AxtuneError(
            f"{path} cannot be looked up: there is no such user.",
            f"Give the whole path; of a name that begins with ~, ./{path}.",
        ) from None


def require_current_folder() -> None:
    """Refuse to work in a folder that has been removed: no path could be looked up from there.

    Raises:
        AxtuneError: When it has.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise AxtuneError(
            "The current folder has been removed.", "Go to one that is there: cd ~."
        ) from None


def require_text(path: str | Path) -> None:
    """Refuse a name whose bytes are not UTF-8: no record of a run could hold it.

    Raises:
        AxtuneError: With the name as its bytes are.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise AxtuneError(
            f"{shown} is no name that can be written down: its bytes are not UTF-8.",
            "Rename it; names of an older Windows: convmv -r -f cp949 -t utf-8 --notest FOLDER.",
        ) from None


def data_suffix(path: Path) -> str:
    """The form of a data file, ``.jsonl`` of ``a.jsonl.gz``; empty when axtune does not read it."""
    suffix = path.suffix.lower()
    if suffix in COMPRESSED:
        inner = Path(path.stem).suffix.lower()
        return inner if inner in TEXTS else ""
    return suffix if suffix in SUFFIXES else ""


def is_document(path: Path) -> bool:
    """Whether a file is a document by its name, or a text such as code and logs: one row."""
    return path.suffix.lower() in (*DOCUMENTS, *PLAIN)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return all((folder / name).is_file() for name in RUN_FILES)


def why_unread(path: Path) -> str:
    """What keeps a file from being read, by its name: the middle of a sentence."""
    if path.is_dir():
        return "it is the folder of a run, whose files are no rows"
    if is_document(path):
        return "it is a document beside files of rows; give its name, or a folder of documents"
    if path.suffix.lower() not in _ARCHIVES:
        return "it is of no format that axtune reads"
    inner = Path(path.stem).suffix.lower()
    if path.suffix.lower() in COMPRESSED and inner in SUFFIXES:
        return f"only texts are read compressed, and {inner} is compressed within; unpack it"
    return "it is an archive; unpack it, and give what it holds"


def local_files(given: str, split: str = "train") -> list[Path]:
    """The data files that a path stands for, sorted by name.

    Those of a folder or a glob are its files of rows; where it has none, its documents.

    Args:
        given: A file, a folder, or a glob; relative to the current folder.
        split: Which one of a folder that has several.

    Raises:
        AxtuneError: When there is no such file or split, or none of a format that axtune reads.
    """
    split = split_read(given, split)
    path, matches = _matches(given, split)
    if path.is_file():
        if not data_suffix(path) and not is_document(path):
            raise AxtuneError(
                f"{given} is not read: {why_unread(path)}.",
                f"It reads {READ}; and {READ_AS_DOCUMENTS}.",
            )
        return [path]
    matches = list(matches)
    files, _ = _of_split(path, matches, split)
    if not files and split == "train":  # names of documents say what they are about, and no split
        files = sorted(filter(is_document, matches))
    if not files:
        what = "holds no" if path.is_dir() else "is no file, folder or pattern of"
        raise AxtuneError(
            f"{given} {what} data files ({READ}).",
            f"Paths are relative to the current folder, {Path.cwd()}.",
        )
    return files


def item_files(given: str) -> list[Path]:
    """The files of items that a path stands for: data, or documents that are named.

    Args:
        given: A file or a glob; or a folder, of which the data files are meant that belong to a
            held-out split, or all where no file does.

    Raises:
        AxtuneError: When there is no such file.
    """
    if not _is_folder(given):
        _, matches = _matches(given, "train")
        return sorted(matches) or local_files(given)  # which says what is not there
    found: set[Path] = set()
    for split in HELD_OUT:
        with contextlib.suppress(AxtuneError):
            found.update(local_files(given, split))
    return sorted(found) or local_files(given)


def left_out(given: str, split: str = "train") -> list[Path]:
    """What lies in a folder or fits a glob and is not read: runs, and data in no form we know.

    Args:
        given: As `local_files` takes it.
        split: As `local_files` takes it.
    """
    path, matches = _matches(given, split_read(given, split))
    if path.is_file():
        return []
    found, runs = sorted(matches), _runs(path)
    if not any(map(data_suffix, found)):
        rest = [file for file in found if not is_document(file) and not _is_no_data(file)]
    else:
        rest = [file for file in found if not data_suffix(file) and not _is_no_data(file)]
    return sorted([*rest, *runs])


def _is_no_data(file: Path) -> bool:
    return file.suffix.lower() in _NO_DATA


def held_out(given: str, split: str = "train") -> Splits:
    """The data files of a folder that belong to other splits, by these.

    Args:
        given: As `local_files` takes it.
        split: As `local_files` takes it.

    Raises:
        AxtuneError: As `local_files` does.
    """
    split = split_read(given, split)
    path, matches = _matches(given, split)
    if not path.is_dir():
        return {}
    if (path / _SAVED_SPLITS).is_file():
        names = sorted(part.parent.name for part in path.glob(f"*/{_SAVED}"))
        return {name: [path / name] for name in names if name != split}
    _, others = _of_split(path, matches, split)
    return others


def split_read(given: str, split: str) -> str:
    """The split that is read of a folder: `AUTO` is the first of `HELD_OUT` that it has, or train.

    Args:
        given: As `local_files` takes it.
        split: As a source has it; another than `AUTO` is itself.
    """
    if split == AUTO and not _is_folder(given):
        return "train"  # a file, or a pattern of files, has no splits
    return first_split(split, lambda one: local_files(given, one))


def first_split(split: str, files: Callable[[str], object]) -> str:
    """What `AUTO` comes to.

    Args:
        split: As a source has it; another than `AUTO` is itself.
        files: Finds the files of a split, or raises `AxtuneError`.
    """
    for one in HELD_OUT if split == AUTO else ():
        with contextlib.suppress(AxtuneError):
            files(one)
            return one
    return "train" if split == AUTO else split


def _of_split(path: Path, matches: Iterable[Path], split: str) -> tuple[list[Path], Splits]:
    """The data files of a split, sorted by name, and those of the folder's other splits."""
    files = sorted(file for file in matches if data_suffix(file))
    if not path.is_dir() or (path / _SAVED_SPLITS).is_file():
        return files, {}
    return of_split(path, files, split)


def visible_files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones, runs, and what says how it is made.

    Links to folders are followed, each folder once. ``.ipynb_checkpoints``, ``._name`` and
    ``__MACOSX`` are left behind by other programs, and hold copies or no rows.

    Raises:
        AxtuneError: When a folder cannot be listed, or a name in it is not UTF-8.
    """
    return (place for place in _below(folder) if not place.is_dir())


def _below(folder: Path) -> Iterator[Path]:
    """What `visible_files` gives, and the folders of runs."""

    def refuse(error: OSError) -> NoReturn:
        raise AxtuneError(
            f"{error.filename} cannot be listed: {error.strerror}.",
            "Give a folder that you may read.",
        ) from None

    seen: set[str] = set()
    for at, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(at)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if Path(at) != folder and is_run(Path(at)):
            folders.clear()
            yield Path(at)
            continue
        folders[:] = [name for name in folders if not _hidden(name)]
        if _SAVED in names and (shards := _shards(Path(at))):
            names, folders[:] = shards, []  # beside the rows lie caches of `map`
        if _STAGES in names and any(is_run(Path(at, name)) for name in folders):
            names = [name for name in names if name != _STAGES]
        for name in names:
            if not _hidden(name) and name not in _ABOUT:
                require_text(file := Path(at, name))
                if file.is_file():
                    yield file
                elif data_suffix(file):
                    what = "a link to nothing" if file.is_symlink() else "no file of rows"
                    raise AxtuneError(
                        f"{file} is {what}, so its rows cannot be read.",
                        "Repair it, or remove it from the folder.",
                    )


def _matches(given: str, split: str) -> tuple[Path, Iterable[Path]]:
    """A path as it was given, and the files of the folder or the glob that it is.

    Raises:
        AxtuneError: When it cannot be looked up.
    """
    path = Path(expanded(given))
    try:
        if path.is_dir():
            if is_run(path):
                raise AxtuneError(
                    f"{given} is the folder of a run, whose files are no rows.",
                    "Give the files that are meant; a run is begun from with start_from.",
                )
            return path, visible_files(_saved_split(path, split))
        if path.is_file():
            return path, [path]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a file"
        raise AxtuneError(
            f"{given} cannot be looked up: {reason}.", "Give a file, a folder or a glob."
        ) from None
    # A part of the pattern that names hidden files means them; wildcards do not.
    begin = _wild(path)
    meant = any(_hidden(part) for part in path.parts[begin:])
    found = [
        file
        for file in map(Path, glob.glob(str(path), recursive=True))
        if file.is_file()
        and file.name not in _ABOUT
        and (meant or not any(map(_hidden, file.parts[begin:])))
        and not any(map(is_run, _folders_between(file, begin)))
    ]
    for file in found:
        require_text(file)
    return path, found


def _runs(path: Path) -> Iterator[Path]:
    """The runs in a folder, or among what fits a glob."""
    if path.is_dir():
        yield from filter(Path.is_dir, _below(path))
        return
    fitting = map(Path, glob.glob(str(path), recursive=True))
    above = {folder for file in fitting for folder in _folders_between(file, _wild(path))}
    yield from filter(is_run, above)


def _wild(path: Path) -> int:
    """The first part of a glob that has a wildcard."""
    return next((n for n, part in enumerate(path.parts) if glob.has_magic(part)), 0)


def _folders_between(file: Path, begin: int) -> Iterator[Path]:
    """The folders of a file that the wildcards of a glob chose."""
    return (Path(*file.parts[:end]) for end in range(begin + 1, len(file.parts)))


def _hidden(name: str) -> bool:
    """As ``datasets`` and shells mean it, and the lock files of an open Office document."""
    return name.startswith((".", "__", "~$"))


def _shards(folder: Path) -> list[str]:
    """The files of a folder of `Dataset.save_to_disk`, as its ``state.json`` lists them."""
    try:
        state = json.loads((folder / _SAVED).read_text(encoding="utf-8"))
        names = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return []  # a state.json of something else
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise AxtuneError(
            f"{folder} lacks {len(missing)} of the {len(names)} files that its {_SAVED} lists.",
            "Copy the folder again.",
        )
    return names


def _saved_split(folder: Path, split: str) -> Path:
    """The folder of a split of `DatasetDict.save_to_disk`; another folder as it is.

    Raises:
        AxtuneError: When it has no such split.
    """
    about = folder / _SAVED_SPLITS
    if not about.is_file():
        return folder
    if not (folder / split).is_dir():
        names = sorted(part.parent.name for part in folder.glob(f"*/{_SAVED}"))
        raise AxtuneError(
            f"{folder} has no split {split}; it has {', '.join(names) or 'none'}.",
            "Give the folder of one of its splits, or {path: …, split: …} in a recipe.",
        )
    return folder / split


def require_writable(output_dir: str) -> None:
    """Find out at once whether a run's folder can be made; nothing is left behind.

    Args:
        output_dir: As the recipe has it; it need not exist yet.

    Raises:
        AxtuneError: When it cannot, with the system's reason.
    """
    folder = Path(output_dir).absolute()
    try:
        if "\0" in output_dir:
            raise ValueError
        require_no_file_in_the_way(Path(output_dir))
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        with TemporaryDirectory(prefix=".axtune-", dir=nearest):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a folder"
        raise AxtuneError(
            f"output_dir {output_dir} cannot be written: {reason}.", "Set another output_dir."
        ) from None


def file_in_the_way(folder: Path) -> Path | None:
    """What keeps a path from being a folder: itself or one of its parents, where it is none."""
    places = (folder, *folder.parents)
    nearest = next(place for place in places if place.exists() or place.is_symlink())
    return None if nearest.is_dir() else nearest


def require_no_file_in_the_way(folder: Path) -> None:
    """Refuse an ``output_dir`` that cannot be a folder.

    Raises:
        AxtuneError: When it is a file, or would be inside of one.
    """
    if file := file_in_the_way(folder):
        which = "it" if file == folder else file
        raise AxtuneError(
            f"output_dir {folder} cannot be a folder: {which} is {no_folder(file)}.",
            "Set another output_dir.",
        )


def no_folder(path: Path) -> str:
    """What a path is that is no folder: a file, or a link that leads nowhere."""
    if not path.is_symlink() or path.exists():
        return "a file, not a folder"
    try:
        path.stat()
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there"
    except OSError:
        pass
    return f"a link to {path.readlink()} that leads in a circle"


def missing_paths(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """What ``data``, ``evaluate``, ``model`` and ``start_from`` name and is not there.

    Args:
        values: A recipe's plain values, valid or not.

    Yields:
        The place of the key, a fault's code, and its message.
    """
    data, evaluate = values.get("data"), values.get("evaluate")
    if isinstance(data, dict):
        for part in ("train", "eval"):
            split = AUTO if part == "eval" else "train"
            yield from _missing_data(("data", part), data.get(part), split)
        if isinstance(replay := data.get("replay"), dict):
            yield from _missing_data(("data", "replay", "train"), replay.get("train"))
        yield from _missing_items(data.get("not_in"))
        kinds = data.get("privacy_kinds")
        if isinstance(kinds, str) and not _is_file(kinds):
            yield ("data", "privacy_kinds"), _CODE, f"there is no file {kinds}. {_where()}"
    if isinstance(evaluate, dict):
        yield from _missing_data(("evaluate", "data"), evaluate.get("data"))
    model = values.get("model")
    if isinstance(model, str) and model.startswith((".", "/", "~")) and not _is_folder(model):
        yield ("model",), _CODE, f"there is no folder {model}. {_where()}"
    start = values.get("start_from")
    if isinstance(start, str) and not _is_folder(start):
        yield ("start_from",), _CODE, f"there is no folder {start}. {_where()}"


def _missing_data(
    place: KeyPath, given: Any, split: str = "train"
) -> Iterator[tuple[KeyPath, str, str]]:
    """What a path, a ``{path: …}``, or a list of these names and is not there."""
    if isinstance(given, list):
        for index, item in enumerate(given):
            yield from _missing_data((*place, index), item, split)
    elif isinstance(given, dict):
        if isinstance(path := given.get("path"), str):
            named = given.get("split")
            yield from _missing_path(
                (*place, "path"), path, named if isinstance(named, str) else split
            )
    elif isinstance(given, str):
        yield from _missing_path(place, given, split)


def _missing_items(given: Any) -> Iterator[tuple[KeyPath, str, str]]:
    """What ``data.not_in`` names and is not there."""
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, str) and not one.startswith(HUB):
            try:
                item_files(one)
            except AxtuneError as error:
                yield ("data", "not_in"), _CODE, f"{error.found} {error.remedy}"


def _missing_path(place: KeyPath, given: str, split: str) -> Iterator[tuple[KeyPath, str, str]]:
    if not given.startswith(HUB):
        try:
            local_files(given, split)
        except AxtuneError as error:
            yield place, _CODE, f"{error.found} {error.remedy}"


def _is_folder(path: str) -> bool:
    try:
        return Path(expanded(path)).is_dir()
    except (AxtuneError, OSError, ValueError):  # no such user, too long for a path
        return False


def _is_file(path: str) -> bool:
    try:
        return Path(expanded(path)).is_file()
    except (AxtuneError, OSError, ValueError):
        return False


def _where() -> str:
    return f"Paths are relative to the current folder, {Path.cwd()}."
