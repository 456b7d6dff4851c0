"""Environment variables and the thread count."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee import env
from specee.errors import ConfigurationError


def test_unset_and_empty_mean_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "  "):
        for name in ("SPECEE_NUM_THREADS", "SPECEE_BACKEND", "SPECEE_FORCE_ISA"):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        assert (env.num_threads(), env.backend(), env.force_isa()) == (None, None, "")
        assert env.resolve_threads() == env.physical_cores() >= 1


def test_values_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECEE_NUM_THREADS", " 3 ")
    monkeypatch.setenv("SPECEE_BACKEND", "reference")
    monkeypatch.setenv("SPECEE_FORCE_ISA", "portable")
    assert (env.resolve_threads(), env.backend(), env.force_isa()) == (3, "reference", "portable")
    assert env.resolve_threads(2) == 2


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1025", "1 2"])
def test_wrong_thread_counts_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SPECEE_NUM_THREADS", value)
    with pytest.raises(ConfigurationError, match=r"SPECEE_NUM_THREADS.*1\.\.1024"):
        env.resolve_threads()


@pytest.mark.parametrize("value", [0, -2, True, 1.5, 2000])
def test_wrong_arguments_are_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"threads=.*1\.\.1024"):
        env.resolve_threads(value)  # type: ignore[arg-type]


def test_unknown_backend_names_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECEE_BACKEND", "gpu")
    with pytest.raises(ConfigurationError, match=r"SPECEE_BACKEND='gpu'.*reference, cpu"):
        env.backend()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Four logical CPUs, and empty folders in place of sysfs and cgroup."""
    monkeypatch.setattr(env, "_SYSFS_CPU", tmp_path / "cpu")
    monkeypatch.setattr(env, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(env, "cgroup_folders", lambda: [tmp_path / "cgroup" / "a", tmp_path / "cgroup"])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    (tmp_path / "cgroup" / "a").mkdir(parents=True)
    return tmp_path


def test_without_topology_every_cpu_is_a_core(machine: Path) -> None:
    assert env.physical_cores() == 4


def test_hyper_threads_count_once(machine: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = machine / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert env.physical_cores() == 2


@pytest.mark.parametrize(
    ("own", "parent", "cores"),
    [
        ("max 100000", "max 100000", 4),
        ("150000 100000", "max 100000", 2),
        ("max 100000", "50000 100000", 1),
        ("900000 100000", "300000 100000", 3),
        ("nonsense", "", 4),
    ],
)
def test_cgroup_quota_caps(machine: Path, own: str, parent: str, cores: int) -> None:
    (machine / "cgroup" / "a" / "cpu.max").write_text(own)
    (machine / "cgroup" / "cpu.max").write_text(parent)
    assert env.physical_cores() == cores


def test_without_affinity_the_cpu_count_serves(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert env.physical_cores() == 6
