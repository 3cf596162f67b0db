"""An installed convt3d is found, linked and run by programs that know only its prefix.

SPDX-License-Identifier: MIT
"""

import os

from conftest import TOP, output_of

# Positions (o + 0.5)/2 - 0.5 of the row 0 1 2 3, kept inside it.
DOUBLED = "0 0.25 0.75 1.25 1.75 2.25 2.75 3\n"


def library_folder(prefix):
    found = list(prefix.glob("lib/**/libconvt3d.so"))
    assert len(found) == 1
    return found[0].parent


def pkg_config(prefix, *words):
    env = dict(os.environ, PKG_CONFIG_PATH=str(library_folder(prefix) / "pkgconfig"))
    return output_of(["pkg-config", *words, "convt3d"], env=env).split()


def test_files_are_where_they_belong(prefix):
    folder = library_folder(prefix).relative_to(prefix)
    installed = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    version = pkg_config(prefix, "--modversion")[0]
    assert {str(folder / name) for name in (
        "libconvt3d.so", "libconvt3d.so.0", "libconvt3d.so." + version, "libconvt3d.a",
        "pkgconfig/convt3d.pc", "cmake/convt3d/convt3dConfig.cmake",
        "cmake/convt3d/convt3dConfigVersion.cmake", "cmake/convt3d/convt3dTargets.cmake",
        "cmake/convt3d/convt3dTargets-release.cmake")} | {
            "include/convt3d.h", "bin/convt3d", "share/man/man1/convt3d.1"} == installed


def test_example_with_pkg_config(prefix, tmp_path):
    program = tmp_path / "double"
    output_of(["gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
               TOP / "examples/double.c", *pkg_config(prefix, "--cflags", "--libs"),
               "-o", program])
    env = dict(os.environ, LD_LIBRARY_PATH=str(library_folder(prefix)))
    assert output_of([program], env=env) == DOUBLED


def test_example_with_pkg_config_static(prefix, tmp_path):
    program = tmp_path / "double"
    flags = pkg_config(prefix, "--static", "--cflags", "--libs")
    output_of(["gcc", "-static", TOP / "examples/double.c", *flags, "-o", program])
    assert output_of([program]) == DOUBLED


def test_examples_with_find_package(prefix, tmp_path):
    output_of(["cmake", "-S", TOP / "examples", "-B", tmp_path, "-DCMAKE_PREFIX_PATH=%s" % prefix])
    output_of(["cmake", "--build", tmp_path])
    assert output_of([tmp_path / "double"]) == DOUBLED
    assert output_of([tmp_path / "double_static"]) == DOUBLED


def test_find_package_refuses_another_major_version(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(other C)\nfind_package(convt3d 1.0)\n"
        "message(STATUS \"found: ${convt3d_FOUND}\")\n")
    text = output_of(["cmake", "-S", tmp_path, "-B", tmp_path / "b",
                      "-DCMAKE_PREFIX_PATH=%s" % prefix])
    assert "found: 0" in text


def test_project_works_as_a_subfolder_of_another(tmp_path):
    """Library only, and the other project's flags are left alone."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(other C)\n"
        "add_subdirectory(%s convt3d)\nadd_executable(double %s)\n"
        "target_link_libraries(double convt3d::convt3d)\n"
        "message(STATUS \"type: (${CMAKE_BUILD_TYPE})\")\n" % (TOP, TOP / "examples/double.c"))
    text = output_of(["cmake", "-S", tmp_path, "-B", tmp_path / "b"])
    assert "type: ()" in text
    output_of(["cmake", "--build", tmp_path / "b", "--parallel", "2"])
    assert output_of([tmp_path / "b/double"]) == DOUBLED
    assert not list((tmp_path / "b").rglob("convt3d_command*"))


def test_installed_command_runs_from_anywhere(prefix, tmp_path):
    text = output_of([prefix / "bin/convt3d", "--version"], cwd=tmp_path,
                     env={"PATH": "/usr/bin:/bin"})
    assert pkg_config(prefix, "--modversion")[0] in text


def test_no_path_of_the_build_leaks(prefix, build):
    leaks = [str(prefix.parent / "first"), str(build), str(TOP)]
    for path in prefix.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert [word for word in leaks if word.encode() in data] == [], path
