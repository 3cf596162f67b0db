# Beside a package named torch: which functions mask which, said in both orders.

# A stand-in for torch in a library of its own.
fake_torch <- function() {
  root <- tempfile("torch")
  source <- file.path(root, "torch")
  dir.create(file.path(source, "R"), recursive = TRUE)
  dir.create(file.path(root, "library"))
  writeLines(c("Package: torch", "Version: 0.0.1", "Title: A Stand-In", "Author: Nobody",
               "Maintainer: Nobody <nobody@example.org>", "Description: Few functions.",
               "License: MIT"), file.path(source, "DESCRIPTION"))
  writeLines(c("export(torch_tensor, nn_conv_transpose3d, torch_other, as_array)",
               "S3method(as_array, torch_tensor)"), file.path(source, "NAMESPACE"))
  writeLines(c("torch_tensor <- function(...) \"torch's tensor\"",
               "nn_conv_transpose3d <- function(...) \"torch's layer\"",
               "torch_other <- function(...) \"torch's other\"",
               "as_array <- function(x) UseMethod(\"as_array\", x)",
               "as_array.torch_tensor <- function(x) \"torch's array\""),
             file.path(source, "R", "all.R"))
  command <- paste("R_TESTS=", shQuote(file.path(R.home("bin"), "R")), "CMD INSTALL --no-docs",
                   "--no-test-load -l", shQuote(file.path(root, "library")), shQuote(source),
                   "2>&1")
  said <- suppressWarnings(system(command, intern = TRUE))
  if (!dir.exists(file.path(root, "library", "torch"))) stop(paste(said, collapse = "\n"))
  root
}

beside_torch <- function(root, lines) {
  run_child(lines, attach = FALSE, libraries = file.path(root, "library"))
}

test_that("without torch there is nothing to say", {
  skip_if(nzchar(system.file(package = "torch")))
  expect_identical(as.character(run_child("invisible()")), character())
})

test_that("with torch installed, both orders of attaching say what is masked", {
  skip_on_cran()
  root <- fake_torch()
  on.exit(unlink(root, recursive = TRUE))
  masked <- "torch_tensor\\(\\)"
  both <- c("cat(convt3d::torch_tensor(1)$item(), torch::torch_tensor(1), \"\\n\")",
            "cat(torch::torch_other(), class(convt3d::nn_conv_transpose3d(1, 1, 1))[1], \"\\n\")")

  said <- beside_torch(root, c("library(torch, warn.conflicts = FALSE)",
                               "library(convt3d, warn.conflicts = FALSE)", both,
                               "torch_tensor(2)$item()"))
  text <- paste(said, collapse = " ")
  expect_match(text, paste("convt3d masks these functions of torch:",
                           "as_array\\(\\), nn_conv_transpose3d\\(\\), torch_tensor"))
  expect_match(text, "Write torch::as_array\\(\\) for torch's own")
  expect_false(grepl("torch_other\\(\\)", text))
  expect_false(grepl("torch masks", text))
  expect_identical(utils::tail(trimws(said), 3),
                   c("1 torch's tensor", "torch's other nn_conv_transpose3d", "[1] 2"))

  said <- beside_torch(root, c("library(convt3d, warn.conflicts = FALSE)",
                               "cat(\"between\\n\")",
                               "library(torch, warn.conflicts = FALSE)", both, "torch_tensor(2)"))
  text <- paste(said, collapse = " ")
  expect_match(text, "torch is installed as well.*between.*torch masks these functions of convt3d")
  expect_match(text, "convt3d::as_array\\(\\) for convt3d's own")
  expect_false(grepl("convt3d masks", text))
  expect_identical(utils::tail(trimws(said), 3),
                   c("1 torch's tensor", "torch's other nn_conv_transpose3d",
                     "[1] \"torch's tensor\""))
  expect_match(text, masked)
})

test_that("torch's as_array() takes this package's tensors, whichever was loaded first", {
  skip_on_cran()
  root <- fake_torch()
  on.exit(unlink(root, recursive = TRUE))
  for (order in list(c("convt3d", "torch"), c("torch", "convt3d"))) {
    said <- beside_torch(root, c(
      sprintf("suppressPackageStartupMessages(library(%s, warn.conflicts = FALSE))", order),
      "x <- convt3d::torch_tensor(c(1, 2))",
      "cat(as_array(x), torch::as_array(x), convt3d::as_array(x), \"\n\")",
      "cat(torch::as_array(structure(1, class = \"torch_tensor\")), \"\n\")"))
    expect_identical(trimws(said), c("1 2 1 2 1 2", "torch's array"))
  }
})

test_that("attaching again says things once, and keeps the hooks of others", {
  skip_on_cran()
  root <- fake_torch()
  on.exit(unlink(root, recursive = TRUE))
  attach <- "library(convt3d, warn.conflicts = FALSE)"
  said <- beside_torch(root, c(
    "setHook(packageEvent(\"torch\", \"attach\"), function(...) cat(\"another's hook\\n\"))",
    attach, "detach(\"package:convt3d\")", attach, "detach(\"package:convt3d\", unload = TRUE)",
    attach, "library(torch, warn.conflicts = FALSE)"))
  text <- paste(said, collapse = "\n")
  expect_identical(lengths(regmatches(text, gregexpr("torch masks these", text))), 1L)
  expect_identical(sum(said == "another's hook"), 1L)
})

test_that("the messages can be kept quiet, and loading alone says nothing", {
  skip_on_cran()
  root <- fake_torch()
  on.exit(unlink(root, recursive = TRUE))
  quiet <- "suppressPackageStartupMessages({ library(torch); library(convt3d) })"
  expect_identical(as.character(beside_torch(root, quiet)), character())
  loaded <- c("invisible(loadNamespace(\"torch\"))", "invisible(loadNamespace(\"convt3d\"))")
  expect_identical(as.character(beside_torch(root, loaded)), character())
})
