# Copies the library and the golden values, which a checkout holds once, outside
# this folder, to where the package needs them. 'configure' runs it, and so do
# pkgbuild and its friends (Config/build/bootstrap); a source package has no
# copy of this file, since everything is in its place there.
# SPDX-License-Identifier: MIT

copy <- function(from, to) {
  unlink(to, recursive = TRUE)
  for (folder in unique(dirname(file.path(to, names(from))))) {
    dir.create(folder, recursive = TRUE, showWarnings = FALSE)
  }
  stopifnot(file.copy(from, file.path(to, names(from)), copy.date = TRUE))
}

# Files of a folder that match a pattern, named by their path below it.
files <- function(folder, pattern) {
  found <- list.files(folder, pattern, recursive = TRUE)
  stopifnot(length(found) > 0)
  stats::setNames(file.path(folder, found), found)
}

if (file.exists("../include/convt3d.h")) {
  copy(c(files("../include", "[.]h$"), files("../src", "[.](c|h|inc)$")), "src/core")
  copy(files("../tests/golden", "[.](txt|safetensors)$"), "tests/testthat/golden")
}
