"""The counting of tests: what fails must count as failed, however it ends.

SPDX-License-Identifier: MIT
"""

import importlib.machinery
import importlib.util

import pytest

from conftest import TOP, output_of

PROGRAM = """
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
static void good(void **state) { (void)state; }
static void good_too(void **state) { (void)state; }
static void bad(void **state) { (void)state; assert_int_equal(1, 2); }
static void left_out(void **state) { (void)state; skip(); }
static void crash(void **state) { (void)state; abort(); }
static void leave(void **state) { (void)state; exit(0); }
int main(void) {
    const struct CMUnitTest tests[] = {%s};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return %s;
}
"""


@pytest.fixture(scope="session")
def runner():
    loader = importlib.machinery.SourceFileLoader("run_tests", str(TOP / "tools/run-tests"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_tests", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("tests, status, counts", [
    ("good good_too", "failed", (2, 0, 0)),
    ("good bad good_too", "failed", (2, 1, 0)),
    ("good left_out", "failed", (1, 0, 1)),
    ("good crash good_too", "failed", (1, 1, 0)),
    ("good leave", "failed", (1, 1, 0)),  # ends well, but in the middle of a test
    ("good", "3", (1, 1, 0)),  # as a sanitizer does at exit
    ("bad bad", "0", (0, 2, 0)),
])
def test_cmocka_programs_are_counted(runner, tmp_path, tests, status, counts):
    text = PROGRAM % (", ".join("cmocka_unit_test(%s)" % test for test in tests.split()), status)
    (tmp_path / "t.c").write_text(text)
    output_of(["gcc", tmp_path / "t.c", "-lcmocka", "-o", tmp_path / "t"])
    result = runner.count_cmocka("t", *runner.run([tmp_path / "t"], tmp_path / "t.log"))
    assert (result.passed, result.failed, result.skipped) == counts


def test_a_program_without_tests_fails(runner):
    assert runner.count_cmocka("t", 0, "all is well\n").failed == 1


def test_a_program_that_hangs_fails(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TIMEOUT_SECONDS", 1)
    result = runner.count_cmocka("t", *runner.run(["sleep", "30"], tmp_path / "log"))
    assert result.failed == 1


def test_pytest_folders_are_counted(runner, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 0\n"
        "@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.skip(reason='no weather')\ndef test_skipped(): pass\n")
    result = runner.pytest_folder("folder", runner.sys.executable, [str(tmp_path)], str(tmp_path),
                                  str(tmp_path))
    assert (result.passed, result.failed, result.skipped) == (1, 2, 1)
    assert result.notes == ["test_skipped: no weather"]


def test_a_pytest_folder_that_cannot_be_read_fails(runner, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_good(: pass\n")
    result = runner.pytest_folder("folder", runner.sys.executable, [str(tmp_path)], str(tmp_path),
                                  str(tmp_path))
    assert (result.passed, result.failed) == (0, 1)


def test_a_pytest_folder_without_tests_fails(runner, tmp_path):
    result = runner.pytest_folder("folder", runner.sys.executable, [str(tmp_path)], str(tmp_path),
                                  str(tmp_path))
    assert (result.passed, result.failed) == (0, 1)


def test_last_line(runner):
    line, failed = runner.tally([runner.Result("a", 2, 0, 0), runner.Result("b", 3, 1, 0)])
    assert (line, failed) == ("5 passed, 1 failed", 1)
    assert runner.tally([runner.Result("a", 2, 0, 4)])[0] == "2 passed, 0 failed, 4 skipped"


def test_where_a_package_is_missing_its_tests_are_skipped(runner, tmp_path, monkeypatch):
    """Those that import it, and all beside a conftest.py that does."""
    environment = runner.python_environment.Environment(runner.sys.executable, ["torch"], "no index")
    monkeypatch.setattr(runner.python_environment, "prepare", lambda *_: environment)
    (tmp_path / "test_one.py").write_text("def test_good(): pass\n")
    (tmp_path / "test_two.py").write_text("def test_a():\n    import torch\ndef test_b(): pass\n")
    build = str(tmp_path)
    result = runner.foreign_tests("folder", str(tmp_path), build, build)
    assert (result.passed, result.failed, result.skipped) == (1, 0, 2)
    assert result.notes == ["test_two.py: 2 skipped: no index"]
    (tmp_path / "conftest.py").write_text("import torch\n")
    result = runner.foreign_tests("folder", str(tmp_path), build, build)
    assert (result.passed, result.failed, result.skipped) == (0, 0, 3)
