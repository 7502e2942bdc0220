"""The documentation is executed: every console block runs, every generated page is the code's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bartizan.cli.main import COMMANDS
from bartizan.wiring.settings import SETTINGS
from fixtures.project import bartizan

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXIT = re.compile(r"  # exit (\d)$")
SHELL = re.compile(r"[|&;<>$`*?~#\\]")
"""What only a shell understands."""
OTHERS = ("record", "serve")
"""Commands that begin programs or stay."""


def commands(page: Path):
    """(command, expected exit code, expected lines) of every console block."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        command, expected = "", []
        for line in [*block.splitlines(), "$ "]:
            if line.startswith("$ "):
                if command:
                    code = EXIT.search(command)
                    yield EXIT.sub("", command), int(code[1]) if code else 0, expected
                command, expected = line.removeprefix("$ "), []
            elif line.strip() and line.strip() != "...":
                expected.append(line.strip())


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One line as a shell would run it, in this process where no shell is needed."""
    words = shlex.split(command)
    if words[:1] == ["bartizan"] and words[1] not in OTHERS and not SHELL.search(command):
        return bartizan(folder, *words[1:])
    return run_in_shell(command, folder)


def run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One line, with this environment's programs first."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def follow(page: Path, folder: Path, run=run) -> None:
    """Run a page from top to bottom, and compare what it promises with what happens."""
    for command, code, expected in commands(page):
        done = run(command, folder)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{page.name}: $ {command}\nexit {done.returncode}\n{said}"
        for line in expected:
            assert _matches(line, said), f"{page.name}: $ {command}\npromised: {line}\nsaid:\n{said}"


def _matches(line: str, said: str) -> bool:
    """Whether a promised line is among what was said; ``...`` stands for anything."""
    pattern = ".*".join(re.escape(part.strip()) for part in line.split("..."))
    return any(re.search(pattern, " ".join(spoken.split())) for spoken in said.splitlines()) or bool(
        re.search(re.sub(r"\\? +", r"\\s+", pattern), said)
    )


@pytest.mark.control("1.1-l")
def test_the_tutorial_does_what_it_says(tmp_path):
    example = ROOT / "examples" / "tumour"
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "tumour").symlink_to(example)
    follow(DOCS / "tutorial.md", tmp_path)


def test_the_page_on_a_suspicious_file_shows_real_output(tmp_path):
    page = DOCS / "suspicious-file.md"
    (script,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    follow(page, tmp_path, run_in_shell)


@pytest.mark.slow
def test_every_how_to_does_what_it_says(project):
    follow(DOCS / "howto.md", project)


def test_generated_pages_are_those_of_the_code():
    done = subprocess.run(
        [sys.executable, str(DOCS / "reference" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run python docs/reference/generate.py: {done.stdout}{done.stderr}"


def test_every_command_that_a_page_names_exists():
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for name in re.findall(
            r"^(?:\$ )?bartizan (?:-C \S+ )?([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert name in COMMANDS, f"{page.name} names `bartizan {name}`"


def test_every_setting_is_documented():
    text = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    assert all(setting.variable in text for setting in SETTINGS)


def test_no_page_has_an_absolute_path_of_a_workplace():
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(/home/|/root/|/work/|/Users/)", text), page


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+\.md)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", ["tutorial.md", "howto.md"])
def test_console_blocks_are_split_into_commands(page):
    found = list(commands(DOCS / page))
    assert found
    for command, _, _ in found:
        assert shlex.split(command)
