# Modules: the page's example, the layer's attributes, sequences, optimisers.

page_example <- "
if (torch_is_installed()) {
input <- torch_randn(20, 16, 10, 50, 100)
# With square kernels and equal stride
m <- nn_conv_transpose3d(16, 33, 3, stride = 2)
# non-square kernels and unequal stride and with padding
m <- nn_conv_transpose3d(16, 33, c(3, 5, 2), stride = c(2, 1, 1), padding = c(0, 4, 2))
output <- m(input)
}"

run_example <- function(text) {
  place <- new.env(parent = globalenv())
  eval(parse(text = text), place)
  place
}

test_that("the page's example runs, on a smaller input", {
  shown <- run_example(sub("20, 16, 10, 50, 100", "2, 16, 3, 9, 10", page_example))
  expect_identical(shown$output$shape, c(2L, 33L, 7L, 5L, 7L))
  expect_identical(dim(shown$output), shown$output$shape)
  expect_identical(dim(as_array(shown$output)), shown$output$shape)
  expect_output(print(shown$output), "[ CPUFloatType{2,33,7,5,7} ][ grad_fn = <conv_transpose3d> ]",
                fixed = TRUE)
})

test_that("the page's example runs unchanged", {
  skip_on_cran()
  shown <- run_example(page_example)
  expect_identical(shown$output$shape, c(20L, 33L, 21L, 46L, 97L))
  # The last output of the last sample sees one input alone: the last depth, tap 3 of depth.
  x <- as_array(shown$input)[20, , 10, , ]
  w <- as_array(shown$m$weight)[, 33, 3, , ]
  want <- as_array(shown$m$bias)[33]
  for (h in 1:5) for (k in 1:2) want <- want + sum(x[, 50 - 5 + h, 100 - k] * w[, 6 - h, k])
  expect_equal(as_array(shown$output$detach())[20, 33, 21, 46, 97], want, tolerance = 1e-5)
})

test_that("the layer has the page's arguments, order and defaults, and one more", {
  arguments <- as.list(formals(nn_conv_transpose3d))
  expect_identical(names(arguments)[11:length(arguments)], "precision")
  expect_identical(arguments[1:10],
                   alist(in_channels = , out_channels = , kernel_size = , stride = 1, padding = 0,
                         output_padding = 0, groups = 1, bias = TRUE, dilation = 1,
                         padding_mode = "zeros"))
})

test_that("arguments can be read back", {
  m <- nn_conv_transpose3d(4, 6, c(3, 5, 2), 2, c(1, 0, 2), 1, 2, FALSE, c(1, 2, 3), "replicate")
  expect_identical(c(m$in_channels, m$out_channels, m$groups), c(4L, 6L, 2L))
  expect_identical(m$kernel_size, c(3L, 5L, 2L))
  expect_identical(m$stride, c(2L, 2L, 2L))
  expect_identical(m$padding, c(1L, 0L, 2L))
  expect_identical(m$output_padding, c(1L, 1L, 1L))
  expect_identical(m$dilation, c(1L, 2L, 3L))
  expect_identical(m$padding_mode, "replicate")
  expect_null(m$bias)
  expect_identical(nn_conv_transpose3d(1, 1, 3, padding = c(1, 0, 1, 1, 1, 1))$padding,
                   c(1L, 0L, 1L, 1L, 1L, 1L))
  expect_refused(m$nothing, "nn_conv_transpose3d", "'nothing'")
  expect_true(all(c("weight", "parameters", "state_dict(", "backward(") %in%
                    utils::.DollarNames(m, "")))
})

test_that("a layer prints its arguments and shapes", {
  m <- nn_conv_transpose3d(16, 33, c(3, 5, 2), stride = c(2, 1, 1), padding = c(0, 4, 2))
  expect_identical(utils::capture.output(print(m)), c(
    paste("nn_conv_transpose3d(16, 33, kernel_size = c(3, 5, 2), stride = c(2, 1, 1),",
          "padding = c(0, 4, 2))"),
    "  weight: Float [16, 33, 3, 5, 2]", "  bias: Float [33]", "  15,873 parameters"))
  m <- nn_conv_transpose3d(4, 4, 3, 2, 1, 1, 2, FALSE, 2, "circular")$to(torch_double())
  expect_identical(utils::capture.output(print(m)), c(
    paste("nn_conv_transpose3d(4, 4, kernel_size = 3, stride = 2, padding = 1, output_padding = 1,",
          "groups = 2, dilation = 2, padding_mode = \"circular\", bias = FALSE)"),
    "  weight: Double [4, 2, 3, 3, 3]", "  216 parameters"))
  expect_output(expect_invisible(print(m)))
  expect_output(str(m), "nn_conv_transpose3d(4, 4", fixed = TRUE)
})

test_that("parameters and state_dict", {
  m <- nn_conv_transpose3d(2, 3, 2)
  expect_identical(names(m$parameters), c("weight", "bias"))
  expect_identical(m$parameters$weight, m$weight)
  state <- m$state_dict()
  expect_identical(names(state), c("weight", "bias"))
  expect_false(state$weight$requires_grad)
  same_bytes(state$weight, m$weight)
  expect_identical(names(nn_conv_transpose3d(2, 3, 2, bias = FALSE)$parameters), "weight")
  other <- nn_conv_transpose3d(2, 3, 2)
  expect_identical(other$load_state_dict(state), other)
  same_bytes(other$weight, m$weight)
  same_bytes(other$bias, m$bias)
  expect_true(other$weight$requires_grad)
  other$load_state_dict(list(bias = 1:3, weight = array(2, c(2, 3, 2, 2, 2))))
  expect_identical(as_array(other$bias), c(1, 2, 3))
  expect_identical(other$weight$dtype, torch_float())
  expect_false(identical(as_array(state$weight), as_array(other$weight)))
})

test_that("a state_dict is loaded whole or not at all", {
  m <- nn_conv_transpose3d(2, 3, 2)
  before <- bytes_of(m$weight)
  w <- array(1, c(2, 3, 2, 2, 2))
  bad <- list(list(), NULL, 1, list(w, 1:3), list(weight = w), list(weight = w, bias = 1:3, c = 1),
              list(weight = w, bias = 1:2), list(weight = w, bias = "a"),
              list(weight = w, bias = NULL), list(weight = w, bias = 1:3, weight = w),
              list(weight = w, Bias = 1:3), list(weight = w, bias = matrix(1:3)))
  for (state in bad) {
    expect_refused(m$load_state_dict(state), "bias")
    expect_identical(bytes_of(m$weight), before)
  }
  expect_refused(m$load_state_dict(list(weight = aperm(w, c(2, 1, 3:5)), bias = 1:3)),
                 "weight has shape (3, 2, 2, 2, 2)", "(2, 3, 2, 2, 2)")
})

test_that("assigning parameters writes into them", {
  m <- nn_conv_transpose3d(2, 3, 2)
  held <- m$weight
  m$weight <- array(3, c(2, 3, 2, 2, 2))
  m$bias <- float64(1:3)
  expect_identical(as_array(held), array(3, c(2, 3, 2, 2, 2)))
  expect_identical(as_array(m(array(0, c(2, 1, 1, 1))))[, 1, 1, 1], c(1, 2, 3))
  expect_identical(m$bias$dtype, torch_float())
})

# What it takes on file, in bytes.
stored_size <- function(x) length(serialize(x, NULL))

test_that("a layer keeps its parameters, not the ones it started with", {
  m <- nn_conv_transpose3d(16, 16, 5)
  before <- stored_size(m)
  m$weight <- array(0, m$weight$shape)
  m$bias <- double(16)
  expect_lt(stored_size(m), before + 1000)
  expect_lt(stored_size(m), 1.2 * 4 * m$weight$numel())
})

test_that("assignments that end in a tensor of a module write there alone", {
  m <- nn_conv_transpose3d(1, 2, 2)
  held <- m$weight
  torch_sum(m(torch_ones(1, 1, 1, 1)))$backward()
  m$weight$grad <- NULL
  expect_null(held$grad)
  expect_false(is.null(m$bias$grad))
  m$parameters$bias$grad <- NULL
  expect_null(m$bias$grad)
  expect_identical(m$weight, held)
  expect_refused(m$parameters <- list(), "parameters")
  expect_refused(m$parameters$bias <- torch_ones(2), "parameters")
  expect_refused(m$bias <- NULL, "bias")
})

test_that("the children of mclapply() go on with one stream, unless they seed", {
  torch_manual_seed(3)
  alike <- parallel::mclapply(1:2, function(i) as_array(torch_randn(4)), mc.cores = 2)
  expect_identical(alike[[1]], alike[[2]])
  apart <- parallel::mclapply(1:2, function(i) {
    torch_manual_seed(i)
    as_array(torch_randn(4))
  }, mc.cores = 2)
  expect_false(identical(apart[[1]], apart[[2]]))
})

test_that("m$backward() leaves frozen parameters alone", {
  x <- array(rnorm(27), c(1, 1, 3, 3, 3))
  dy <- array(1, c(1, 2, 4, 4, 4))
  m <- nn_conv_transpose3d(1, 2, 2)
  want <- m$backward(x, dy)
  whole <- as_array(m$bias$grad)
  m$zero_grad()
  m$weight$requires_grad_(FALSE)
  expect_identical(m$backward(x, dy), want)
  expect_null(m$weight$grad)
  expect_identical(as_array(m$bias$grad), whole)
  m$zero_grad()
  m$bias$requires_grad_(FALSE)
  expect_identical(m$backward(x, dy), want)
  expect_null(m$bias$grad)
  m$weight$requires_grad_(TRUE)
  m$backward(x, dy)
  expect_false(is.null(m$weight$grad))
  expect_null(m$bias$grad)
})

test_that("sizes of parameters are printed in full", {
  m <- nn_conv_transpose3d(1, 100000, 1, bias = FALSE)
  expect_identical(utils::capture.output(print(m)), c(
    "nn_conv_transpose3d(1, 100000, kernel_size = 1, bias = FALSE)",
    "  weight: Float [1, 100000, 1, 1, 1]", "  100,000 parameters"))
})

test_that("train, eval and dtypes", {
  m <- nn_conv_transpose3d(1, 2, 2)
  expect_true(m$training)
  expect_false(m$eval()$training)
  expect_true(m$train()$training)
  expect_false(m$train(FALSE)$training)
  expect_refused(m$train(NA), "mode")
  values <- as_array(m$weight)
  expect_identical(m$to(torch_double())$weight$dtype, torch_double())
  expect_identical(as_array(m$weight), values)
  expect_identical(m(torch_ones(1, 1, 1, 1, dtype = torch_double()))$dtype, torch_double())
  expect_refused(m$to("double"), "dtype")
})

test_that("a saved module is read as it was", {
  path <- tempfile()
  on.exit(unlink(path))
  m <- nn_conv_transpose3d(2, 3, 2, stride = 2)
  x <- array(rnorm(54), c(1, 2, 3, 3, 3))
  saveRDS(m, path)
  expect_identical(readRDS(path)(x), m(x))
})

# ---- Sequences -----------------------------------------------------------------------

test_that("a sequence calls its layers in turn, under PyTorch's names", {
  m <- nn_sequential(nn_conv_transpose3d(1, 2, 2, stride = 2), nn_relu(), function(x) x * 2,
                     nn_conv_transpose3d(2, 1, 1, bias = FALSE))
  x <- torch_randn(1, 1, 2, 2, 2)
  same_bytes(m(x), m[[4]](nnf_relu(m[[1]](x)) * 2))
  expect_identical(names(m$parameters), c("0.weight", "0.bias", "3.weight"))
  expect_identical(names(m$state_dict()), names(m$parameters))
  expect_identical(length(m), 4L)
  expect_identical(utils::capture.output(print(m)), c(
    "nn_sequential", "  (0) nn_conv_transpose3d(1, 2, kernel_size = 2, stride = 2)",
    "  (1) nn_relu()", "  (2) a function",
    "  (3) nn_conv_transpose3d(2, 1, kernel_size = 1, bias = FALSE)",
    "  0.weight: Float [1, 2, 2, 2, 2]", "  0.bias: Float [2]",
    "  3.weight: Float [2, 1, 1, 1, 1]", "  20 parameters"))
  torch_sum(m(x))$backward()
  expect_false(is.null(m[[4]]$weight$grad))
  m$zero_grad()
  for (p in m$parameters) expect_null(p$grad)
  expect_false(m$eval()[[1]]$training)
  other <- nn_sequential(nn_conv_transpose3d(1, 2, 2, stride = 2), nn_relu(), function(x) x * 2,
                         nn_conv_transpose3d(2, 1, 1, bias = FALSE))
  other$load_state_dict(m$state_dict())
  same_bytes(other(x), m(x))
  m$to(torch_double())
  expect_identical(m[[4]]$weight$dtype, torch_double())
})

test_that("layers of a sequence can be written into, and not replaced", {
  net <- nn_sequential(nn_conv_transpose3d(1, 2, 2), nn_sequential(nn_conv_transpose3d(2, 1, 1)),
                       function(x) x * 2)
  held <- net[[1]]$weight
  torch_sum(net(torch_ones(1, 1, 1, 1)))$backward()
  net[[1]]$weight <- array(7, c(1, 2, 2, 2, 2))
  net[[1]]$weight$grad <- NULL
  net[[2]][[1]]$bias <- 3
  net[[2]][[1]]$bias$grad <- NULL
  expect_identical(net[[1]]$weight, held)
  expect_identical(as_array(held), array(7, c(1, 2, 2, 2, 2)))
  expect_null(held$grad)
  expect_identical(as_array(net$parameters[["1.0.bias"]]), 3)
  expect_null(net[[2]][[1]]$bias$grad)
  expect_refused(net[[1]] <- nn_conv_transpose3d(1, 2, 2), "nn_sequential", "can't be replaced")
  expect_refused(net[[1]] <- NULL, "can't be replaced")
  expect_refused(net[[3]] <- function(x) x, "can't be replaced")
  expect_refused(net[[4]] <- nn_relu(), "the number of a layer is 4", "from 1 to 3")
  expect_refused(net[[0]], "the number of a layer is 0", "from 1 to 3")
  expect_identical(length(net), 3L)
})

test_that("a layer that is there twice has its parameters once, and all names", {
  m <- nn_conv_transpose3d(1, 1, 1)
  net <- nn_sequential(m, nn_relu(), nn_sequential(m), nn_conv_transpose3d(1, 1, 1, bias = FALSE))
  expect_identical(names(net$parameters), c("0.weight", "0.bias", "3.weight"))
  all_names <- c("0.weight", "0.bias", "2.0.weight", "2.0.bias", "3.weight")
  expect_identical(names(net$state_dict()), all_names)
  expect_output(print(net), "\n  3 parameters", fixed = TRUE)
  net$load_state_dict(stats::setNames(list(array(2, rep(1, 5)), 3, array(2, rep(1, 5)), 3,
                                           array(4, rep(1, 5))), all_names))
  expect_identical(as_array(m$bias), 3)
  torch_sum(net(torch_ones(1, 1, 1, 1)))$backward()
  once <- as_array(m$bias$grad)
  optim_sgd(net$parameters, lr = 1)$step()
  expect_equal(as_array(m$bias), 3 - once)
})

test_that("sequences of sequences, and what isn't one", {
  m <- nn_sequential(nn_sequential(nn_conv_transpose3d(1, 1, 1), nn_relu()), nn_relu())
  expect_identical(names(m$parameters), c("0.0.weight", "0.0.bias"))
  expect_identical(m$train(FALSE)[[1]][[1]]$training, FALSE)
  x <- torch_randn(1, 1, 2, 2, 2)
  same_bytes(m(x), nnf_relu(m[[1]][[1]](x)))
  expect_refused(nn_sequential(nn_relu(), 3), "argument 2", "module or a function")
  expect_identical(nn_sequential()(x), x)
  expect_identical(length(nn_relu()$parameters), 0L)
  expect_output(print(nn_relu()), "nn_relu()", fixed = TRUE)
})
