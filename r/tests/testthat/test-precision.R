# precision: what it changes where the CPU has AMX, and what it must not change.

names_of_precision <- c("highest", "high", "medium")

# Results of each precision, and by default.
by_precision <- function(x, w) {
  run <- function(...) as_array(nnf_conv_transpose3d(x, w, padding = 1, ...))
  c(lapply(names_of_precision, function(name) run(precision = name)), list(run()))
}

test_that("each is as exact as it says", {
  torch_manual_seed(11)
  x <- torch_randn(1, 64, 3, 4, 20)
  w <- torch_randn(64, 64, 3, 3, 3)
  exact <- nnf_conv_transpose3d(as_array(x), as_array(w), padding = 1)
  sums <- nnf_conv_transpose3d(abs(as_array(x)), abs(as_array(w)), padding = 1)
  found <- by_precision(x, w)
  error <- vapply(found, function(y) max(abs(y - exact) / sums), 0)
  expect_true(all(error[1:3] < 2^-c(20, 15, 7)))
  expect_identical(found[[1]], found[[4]])
  if (convt3d_info()$isa == "x86_amx") {
    expect_lt(error[1] * 4, error[2])
    expect_lt(error[2] * 64, error[3])
  } else {
    expect_identical(found[1], found[2])
    expect_identical(found[1], found[3])
  }
})

test_that("arrays, which are float64, know one", {
  x <- array(rnorm(64 * 60), c(1, 64, 3, 4, 5))
  w <- array(rnorm(64 * 64 * 8), c(64, 64, 2, 2, 2))
  results <- lapply(names_of_precision,
                    function(name) nnf_conv_transpose3d(x, w, precision = name))
  expect_identical(results[[1]], results[[2]])
  expect_identical(results[[1]], results[[3]])
})

test_that("a module keeps its precision, in its gradients too", {
  x <- torch_randn(1, 64, 3, 4, 20)
  modules <- lapply(names_of_precision, function(name) {
    torch_manual_seed(5)
    nn_conv_transpose3d(64, 64, 3, padding = 1, precision = name)
  })
  expect_identical(vapply(modules, function(m) m$precision, ""), names_of_precision)
  expect_match(format(modules[[3]]), "precision = \"medium\"", fixed = TRUE)
  expect_no_match(format(modules[[1]]), "precision", fixed = TRUE)
  gradients <- lapply(modules, function(m) {
    input <- x$clone()$requires_grad_()
    m(input)$sum()$backward()
    as_array(input$grad)
  })
  differ <- !identical(gradients[[1]], gradients[[3]])
  expect_identical(differ, convt3d_info()$isa == "x86_amx")
})

test_that("other names are refused", {
  x <- torch_randn(1, 2, 3, 3, 3)
  expect_error(nnf_conv_transpose3d(x, torch_randn(2, 2, 1, 1, 1), precision = "low"),
               "precision")
  expect_error(nn_conv_transpose3d(2, 2, 1, precision = "low"), "highest")
})
