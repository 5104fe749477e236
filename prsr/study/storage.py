"""A study on disk: one SQLite file with its images, raters, trials and answers.

The file is in WAL mode, and answers are committed with ``synchronous = FULL``: they survive a
killed process and a power failure. Each call opens a connection of its own, so that calls may come
from any thread and from several processes. Nothing about a rater is stored but a random token and
the answers.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from prsr.study.database import connect, connect_to_read, is_writable, transaction
from prsr.study.schedule import Schedule
from prsr.utils.argument_checks import check_integer, set_checked
from prsr.utils.files import replacing

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SUFFIX = ".sqlite"
FORMAT = 1
"""Of the tables below, in SQLite's ``user_version``."""

TABLES = """
CREATE TABLE study (
    question TEXT NOT NULL, exposure INTEGER NOT NULL,
    per_method INTEGER NOT NULL, catch INTEGER NOT NULL, seed INTEGER NOT NULL);
CREATE TABLE method (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE input (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, real BLOB NOT NULL, catch BLOB NOT NULL);
CREATE TABLE generated (
    input INTEGER NOT NULL REFERENCES input, method INTEGER NOT NULL REFERENCES method,
    png BLOB NOT NULL, PRIMARY KEY (input, method));
CREATE TABLE rater (id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE);
CREATE TABLE trial (
    rater INTEGER NOT NULL REFERENCES rater, position INTEGER NOT NULL,
    token TEXT NOT NULL UNIQUE,
    input INTEGER NOT NULL REFERENCES input, method INTEGER REFERENCES method,
    real_on_left INTEGER NOT NULL CHECK (real_on_left IN (0, 1)),
    showings INTEGER NOT NULL DEFAULT 0,
    chose_left INTEGER CHECK (chose_left IN (0, 1)),
    PRIMARY KEY (rater, position)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Settings:
    """What a study asks, and how.

    Attributes:
        question: shown with each pair.
        exposure: milliseconds for which a pair is visible.
        per_method: pairs of each method that a rater sees.
        catch: catch trials that a rater sees.
        seed: of order and sides.
    """

    question: str
    exposure: int
    per_method: int
    catch: int
    seed: int

    def __post_init__(self) -> None:
        if not self.question.strip() or len(self.question) > 200:
            raise ValueError(
                f"question must have 1 to 200 characters, got {len(self.question.strip())}"
            )
        exposure = check_integer(self.exposure, "exposure in milliseconds", 50, 60_001)
        set_checked(self, "exposure", exposure)
        for name, least in ("per_method", 1), ("catch", 0), ("seed", 0):
            set_checked(self, name, check_integer(getattr(self, name), name, least, 2**63))


@dataclass(frozen=True)
class StudyInput:
    """The images of one input, each a PNG file in memory.

    Attributes:
        name: tells the input from others.
        real: the photograph.
        catch: the bicubic enlargement of its low-resolution version.
        generated: what each method made of it, by method.
    """

    name: str
    real: bytes
    catch: bytes
    generated: Mapping[str, bytes]


@dataclass(frozen=True)
class Trial:
    """The pair that a rater is to judge next.

    Attributes:
        token: names the trial in an answer; it cannot be guessed.
        number: from 1.
        of: how many trials the rater has.
        left: PNG file of the image on the left.
        right: PNG file of the image on the right.
    """

    token: str
    number: int
    of: int
    left: bytes
    right: bytes


@dataclass(frozen=True)
class Answer:
    """An answered trial.

    Attributes:
        rater: number of the rater, from 1.
        position: of the trial among the rater's, from 1.
        input: name of the input.
        method: name of the method; None for a catch trial.
        real_on_left: the side of the real image.
        chose_left: the side that the rater took for the photograph.
        showings: how often the pair was shown.
    """

    rater: int
    position: int
    input: str
    method: str | None
    real_on_left: bool
    chose_left: bool
    showings: int

    @property
    def fooled(self) -> bool:
        """Whether the rater took the generated image for the photograph."""
        return self.real_on_left != self.chose_left


class UnknownTrial(LookupError):
    """No rater with this token has been shown such a trial."""


def study_path(folder: Path, name: str) -> Path:
    """The file of a study.

    Raises:
        ValueError: ``name`` is not a valid name.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            "the name of a study must be 1 to 64 letters, digits, - and _ of ASCII, and begin with "
            f"a letter or digit, got {name!r}"
        )
    return folder / f"{name}{SUFFIX}"


def list_studies(folder: Path) -> list[str]:
    """Names of the studies in a folder, in order; none if there is no such folder."""
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted(name for name in names if NAME.fullmatch(name))


def create_study(
    path: Path, settings: Settings, methods: Sequence[str], inputs: Sequence[StudyInput]
) -> None:
    """Write a new study in one step.

    Args:
        path: of the file; its folder must exist.
        settings: what is asked, and how.
        methods: names, at least one.
        inputs: each with an image of each method.

    Raises:
        FileExistsError: there is a file at ``path``, which is never replaced: it may contain
            answers.
        ValueError: there are too few inputs.
    """
    Schedule(len(inputs), len(methods), settings.per_method, settings.catch, settings.seed)
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another name or remove it")
    with (
        replacing(path) as temporary,
        closing(connect(temporary)) as database,
        transaction(database),
    ):
        for statement in TABLES.split(";"):
            database.execute(statement)
        fields = asdict(settings)
        marks = ", ".join(f":{name}" for name in fields)
        database.execute(f"INSERT INTO study ({', '.join(fields)}) VALUES ({marks})", fields)
        database.executemany("INSERT INTO method VALUES (?, ?)", enumerate(methods))
        for number, each in enumerate(inputs):
            row = (number, each.name, each.real, each.catch)
            database.execute("INSERT INTO input VALUES (?, ?, ?, ?)", row)
            database.executemany(
                "INSERT INTO generated VALUES (?, ?, ?)",
                ((number, m, each.generated[name]) for m, name in enumerate(methods)),
            )
        database.execute(f"PRAGMA user_version = {FORMAT}")


class Study:
    """A study that exists.

    Args:
        folder: of the studies.
        name: of the study.

    Raises:
        FileNotFoundError: there is no such study.
        ValueError: the name is not valid, or the file is not a study.
        PermissionError: the storage is read-only, and commits in the WAL file cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = study_path(folder, name)
        if not self.path.is_file():
            raise FileNotFoundError(f"no study {name!r} in {folder}")
        try:
            with self._read() as database:
                version = database.execute("PRAGMA user_version").fetchone()[0]
                if version != FORMAT:
                    raise ValueError(f"{self.path} is not a study of format {FORMAT}")
                columns = ", ".join(Settings.__dataclass_fields__)
                found = database.execute(f"SELECT {columns} FROM study").fetchone()
                rows = database.execute("SELECT name FROM method ORDER BY id").fetchall()
                self.methods: list[str] = [name for (name,) in rows]
                inputs = database.execute("SELECT count(*) FROM input").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} cannot be read as a study: {error}") from error
        self.settings = Settings(*found)
        self.schedule = Schedule(inputs, len(self.methods), *found[-3:])

    @contextmanager
    def _open(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with closing(connect(self.path, durable=durable)) as database:
            yield database

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with closing(connect_to_read(self.path)) as database:
            try:
                yield database
            except sqlite3.OperationalError as error:
                if is_writable(self.path):
                    raise
                raise PermissionError(
                    f"{self.path} and its folder must be writable: {error}"
                ) from error

    def add_rater(self) -> str:
        """A new rater with a schedule.

        Returns:
            The rater's token, which cannot be guessed.
        """
        token = secrets.token_urlsafe(16)
        with self._open() as database, transaction(database):
            rater = database.execute("INSERT INTO rater (token) VALUES (?)", (token,)).lastrowid
            assert rater is not None
            database.executemany(
                "INSERT INTO trial (rater, position, token, input, method, real_on_left)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (rater, position, secrets.token_urlsafe(16), p.input, p.method, p.real_on_left)
                    for position, p in enumerate(self.schedule.pairs(rater - 1), start=1)
                ),
            )
        return token

    def has_rater(self, rater_token: str) -> bool:
        """Whether there is a rater with this token."""
        with self._read() as database:
            row = database.execute("SELECT 1 FROM rater WHERE token = ?", (rater_token,)).fetchone()
        return row is not None

    def next_trial(self, rater_token: str) -> Trial | None:
        """The rater's first trial without an answer, noted as shown; None if there is none left.

        Raises:
            LookupError: there is no such rater.
        """
        with self._open() as database, transaction(database):
            rater = self._rater(database, rater_token)
            row = database.execute(
                "SELECT position, token, real_on_left, real, coalesce(png, catch)"
                " FROM trial JOIN input ON input.id = trial.input"
                " LEFT JOIN generated USING (input, method)"
                " WHERE rater = ? AND chose_left IS NULL ORDER BY position LIMIT 1",
                (rater,),
            ).fetchone()
            if row is None:
                return None
            position, token, real_on_left, real, made = row
            database.execute(
                "UPDATE trial SET showings = showings + 1 WHERE rater = ? AND position = ?",
                (rater, position),
            )
        left, right = (real, made) if real_on_left else (made, real)
        return Trial(token, position, self.schedule.length, left, right)

    def answer(self, rater_token: str, trial_token: str, chose_left: bool) -> bool:
        """Store an answer; when this returns, the disk has it.

        Returns:
            Whether it was stored. False if the trial has an answer already, which stays.

        Raises:
            LookupError: there is no such rater.
            UnknownTrial: the rater has not been shown this trial.
        """
        with self._open(durable=True) as database, transaction(database):
            rater = self._rater(database, rater_token)
            shown = database.execute(
                "SELECT chose_left IS NULL FROM trial"
                " WHERE rater = ? AND token = ? AND showings > 0",
                (rater, trial_token),
            ).fetchone()
            if shown is None:
                raise UnknownTrial("this pair has not been shown to this rater")
            database.execute(
                "UPDATE trial SET chose_left = ?"
                " WHERE rater = ? AND token = ? AND chose_left IS NULL",
                (chose_left, rater, trial_token),
            )
        return bool(shown[0])

    def _rater(self, database: sqlite3.Connection, token: str) -> int:
        row = database.execute("SELECT id FROM rater WHERE token = ?", (token,)).fetchone()
        if row is None:
            raise LookupError("no rater has this token")
        return int(row[0])

    def count_raters(self) -> int:
        """Raters who have begun."""
        with self._read() as database:
            return int(database.execute("SELECT count(*) FROM rater").fetchone()[0])

    def answers(self) -> list[Answer]:
        """All answers, by rater and position."""
        with self._read() as database:
            rows = database.execute(
                "SELECT rater, position, input.name, method.name, real_on_left, chose_left,"
                " showings FROM trial JOIN input ON input.id = trial.input"
                " LEFT JOIN method ON method.id = trial.method"
                " WHERE chose_left IS NOT NULL ORDER BY rater, position"
            ).fetchall()
        return [
            Answer(rater, position, name, method, bool(real), bool(chose), showings)
            for rater, position, name, method, real, chose, showings in rows
        ]
