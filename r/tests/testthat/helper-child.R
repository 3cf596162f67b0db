# helper-child: other R processes, which find this very installation.

child_library <- function() {
  paste(unique(c(dirname(find.package("convt3d")), .libPaths())), collapse = .Platform$path.sep)
}

# The command line of an Rscript that runs these lines after library(convt3d).  R_TESTS is
# R CMD check's, and would send a child for a file in its folder.
child_command <- function(lines, arguments = character(), attach = TRUE, libraries = NULL,
                          before = "") {
  script <- tempfile(fileext = ".R")
  writeLines(c(if (attach) "library(convt3d)", lines), script)
  libraries <- paste(c(libraries, child_library()), collapse = .Platform$path.sep)
  paste(before, paste0("R_LIBS=", shQuote(libraries)), "R_TESTS=", "CONVT3D_NUM_THREADS=2",
        "exec", shQuote(file.path(R.home("bin"), "Rscript")), "--vanilla", shQuote(script),
        paste(shQuote(arguments), collapse = " "), "2>&1")
}

# What such a child prints, warnings and errors included; attribute "status" as system() has it.
run_child <- function(...) {
  suppressWarnings(system(child_command(...), intern = TRUE))
}
