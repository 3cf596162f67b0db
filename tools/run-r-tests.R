# Runs one file of the R package's tests, as testthat::test_check() would.
# Usage: Rscript tools/run-r-tests.R TEST_FILE RESULTS
# Writes a line for each test to RESULTS: passed, failed or skipped, a tab, the
# test's name, a tab, and why it was skipped.
# SPDX-License-Identifier: MIT

arguments <- commandArgs(TRUE)
name <- sub("[.]R$", "", sub("^test-", "", basename(arguments[1])))

verdict <- function(result) {
  kinds <- vapply(result$results, function(r) sub("^expectation_", "", class(r)[1]), "")
  skips <- result$results[kinds == "skip"]
  status <- if (any(kinds %in% c("failure", "error"))) "failed"
  if (is.null(status)) status <- if (length(skips) > 0) "skipped" else "passed"
  why <- if (status == "skipped") sub("^Reason: ", "", conditionMessage(skips[[1]])) else ""
  test <- if (is.na(result$test)) "outside of any test" else result$test
  paste(gsub("[[:space:]]+", " ", enc2utf8(c(status, test, why))), collapse = "\t")
}

library(testthat)
library(convt3d)
results <- test_dir(dirname(arguments[1]), filter = paste0("^", name, "$"), package = "convt3d",
                    load_package = "installed", reporter = "check", stop_on_failure = FALSE)
writeLines(vapply(results, verdict, ""), arguments[2], useBytes = TRUE)
