# What PyTorch computes, from the golden files: exact values, so that the bounds are this
# package's alone: |error| <= g(K+2)*S + (K+1)*tiny in float32, with K products of
# magnitudes that sum to S; in float64 every sum is exact in any order.

golden_layers <- function() {
  tensors <- golden_tensors("layers.safetensors")
  lapply(golden_lines("layers.txt"), function(line) {
    p <- parse_problem(line)
    own <- tensors[startsWith(names(tensors), paste0(p$name, "/"))]
    names(own) <- sub(".*/", "", names(own))
    list(p = p, parts = lapply(own, golden_array))
  })
}

batched <- function(x) if (length(dim(x)) == 4) array(x, c(1, dim(x))) else x

# What the float32 results may be off by.
golden_bounds <- function(p, parts) {
  u <- 2^-24
  magnitudes <- lapply(parts, function(x) batched(abs(x)))
  ones <- lapply(magnitudes, function(x) x * 0 + 1)
  of <- function(x) oracle(p, x$input, x$weight, x$bias, x$grad_output)
  Map(function(s, k) (k + 2) * u / (1 - (k + 2) * u) * s + (k + 1) * 2^-149,
      of(magnitudes), of(ones))
}

# The four results through the tape.
tape_results <- function(p, parts, tensor) {
  x <- tensor(parts$input)$requires_grad_()
  w <- tensor(parts$weight)$requires_grad_()
  b <- if (p$bias) tensor(parts$bias)$requires_grad_()
  y <- run_problem(p, x, w, b)
  y$backward(tensor(parts$grad_output))
  lapply(list(output = y, grad_input = x$grad, grad_weight = w$grad, grad_bias = b$grad),
         function(t) if (!is.null(t)) as_array(t))
}

test_that("the golden list keeps what it is there for", {
  layers <- lapply(golden_lines("layers.txt"), parse_problem)
  modes <- table(vapply(layers, `[[`, "", "padding_mode"))
  expect_gte(length(layers), 40)
  expect_setequal(names(modes), c("zeros", "reflect", "replicate", "circular"))
  expect_true(all(modes >= 4))
  expect_gte(sum(vapply(layers, `[[`, NA, "double")), 5)
  asymmetric <- vapply(layers, function(p) any(p$padding[c(1, 3, 5)] != p$padding[c(2, 4, 6)]), NA)
  expect_gte(sum(asymmetric), 5)
})

test_that("forward and gradients are PyTorch's", {
  for (layer in golden_layers()) {
    p <- layer$p
    results <- tape_results(p, layer$parts, if (p$double) float64 else float32)
    bounds <- golden_bounds(p, layer$parts)
    for (part in names(Filter(Negate(is.null), results))) {
      got <- results[[part]]
      want <- layer$parts[[part]]
      expect_identical(dim(got), dim(want), label = paste(p$name, part))
      error <- abs(c(got - want))
      bound <- if (p$double) 0 else c(bounds[[part]])
      expect_true(all(error <= bound), label = paste(p$name, part, "within its bound"))
    }
  }
})

test_that("arrays and the oracle are PyTorch's, exactly", {
  for (layer in golden_layers()) {
    p <- layer$p
    parts <- layer$parts
    expect_identical(run_problem(p, parts$input, parts$weight, parts$bias), parts$output,
                     label = p$name)
    whole <- lapply(parts, batched)
    judged <- oracle(p, whole$input, parts$weight, parts$bias, whole$grad_output)
    for (part in names(Filter(Negate(is.null), judged))) {
      expect_identical(c(judged[[part]]), c(parts[[part]]), label = paste("oracle", p$name, part))
    }
  }
})

test_that("the module's own backward gives PyTorch's gradients", {
  for (layer in golden_layers()) {
    p <- layer$p
    parts <- layer$parts
    m <- module_of(p, p$bias)$to(torch_double())
    m$load_state_dict(parts[c("weight", if (p$bias) "bias")])
    expect_identical(m$backward(parts$input, parts$grad_output), parts$grad_input, label = p$name)
    expect_identical(as_array(m$weight$grad), parts$grad_weight, label = p$name)
    if (p$bias) expect_identical(as_array(m$bias$grad), c(parts$grad_bias), label = p$name)
    expect_identical(m(parts$input, output_size = utils::tail(dim(parts$output), 3)),
                     parts$output, label = p$name)
  }
})

test_that("whole numbers give exact results in every layout and type", {
  set.seed(20)
  for (mode in rep(c("zeros", "reflect", "replicate", "circular"), 8)) {
    p <- random_problem(mode)
    x <- whole_numbers(input_shape(p))
    w <- whole_numbers(weight_shape(p))
    b <- as.double(pick(-9:9, p$out_channels))
    want <- oracle_forward(p, x, w, b)
    label <- paste(deparse(p), collapse = "")
    expect_identical(run_problem(p, x, w, b), want, label = label)
    expect_identical(run_problem(p, x, w), oracle_forward(p, x, w), label = label)
    native <- run_problem(p, aperm(x), aperm(w), b, layout = "native")
    expect_identical(aperm(native), want, label = label)
    for (tensor in c(float32, float64)) {
      y <- run_problem(p, tensor(x), tensor(w), tensor(b))
      expect_identical(as_array(y), want, label = label)
      expect_identical(y$dtype, tensor(1)$dtype)
    }
    expect_identical(as_array(run_problem(p, float32(x), w, b)), want, label = label)
    expect_identical(run_problem(p, x, float32(w), float32(b)), want, label = label)
  }
})

test_that("large whole numbers show a hidden loss of precision", {
  set.seed(21)
  p <- problem(1, 3, 3, 3, 2, 1, 1)
  for (largest in list(c(2047, 1023), c(2^20 - 1, 1))) {
    x <- whole_numbers(input_shape(p), largest[1])
    w <- whole_numbers(weight_shape(p), largest[2])
    stopifnot(max(oracle_forward(p, abs(x), abs(w))) <= 2^24)
    want <- oracle_forward(p, x, w)
    expect_identical(run_problem(p, x, w), want)
    expect_identical(as_array(run_problem(p, float32(x), float32(w))), want)
  }
})

test_that("gradients of whole numbers are exact in every layout and type", {
  set.seed(22)
  for (mode in rep(c("zeros", "reflect", "replicate", "circular"), 3)) {
    p <- random_problem(mode)
    parts <- list(input = whole_numbers(input_shape(p)), weight = whole_numbers(weight_shape(p)),
                  bias = as.double(pick(-9:9, p$out_channels)),
                  grad_output = whole_numbers(output_shape(p)))
    want <- oracle(p, parts$input, parts$weight, parts$bias, parts$grad_output)
    for (tensor in c(float32, float64)) {
      expect_equal(tape_results(c(p, bias = TRUE), parts, tensor), want, tolerance = 0)
    }
    m <- module_of(p)
    m$load_state_dict(parts[c("weight", "bias")])
    dx <- m$backward(aperm(parts$input), aperm(parts$grad_output), layout = "native")
    expect_identical(aperm(dx), want$grad_input)
    expect_identical(as_array(m$weight$grad), want$grad_weight)
    expect_identical(as_array(m$bias$grad), want$grad_bias)
  }
})

test_that("both layouts give the same bytes, transposed or not", {
  set.seed(23)
  for (mode in c("zeros", "reflect", "replicate", "circular")) {
    p <- problem(4, 6, c(4, 5, 19), c(3, 2, 4), c(1, 2, 2), c(1, 0, 2), 0, 2, 1, mode, 2)
    x <- array(rnorm(prod(input_shape(p))), input_shape(p))
    w <- array(rnorm(prod(weight_shape(p))), weight_shape(p))
    b <- rnorm(p$out_channels)
    y <- run_problem(p, x, w, b)
    expect_gt(mean(y != 0), 0.9)
    expect_identical(aperm(run_problem(p, aperm(x), aperm(w), b, layout = "native")), y)
    expect_identical(as_array(run_problem(p, float64(x), float64(w), float64(b))), y)
    m <- module_of(p)
    dy <- array(rnorm(length(y)), dim(y))
    dx <- m$backward(x, dy)
    dw <- as_array(m$weight$grad)
    m$zero_grad()
    expect_identical(aperm(m$backward(aperm(x), aperm(dy), layout = "native")), dx)
    expect_identical(as_array(m$weight$grad), dw)
  }
})

test_that("integer and logical arrays count as numbers", {
  x <- array(0:7, c(1, 2, 2, 2))
  w <- array(1:8, c(1, 1, 2, 2, 2))
  expect_identical(nnf_conv_transpose3d(x, w), nnf_conv_transpose3d(x + 0, w + 0))
  expect_identical(nnf_conv_transpose3d(x > 3, w), nnf_conv_transpose3d((x > 3) + 0, w))
  expect_identical(nnf_conv_transpose3d(x, w, 2L), nnf_conv_transpose3d(x, w, 2))
})

test_that("one sample may come without its batch axis", {
  set.seed(24)
  p <- problem(2, 3, c(2, 3, 4), c(3, 2, 1), 2)
  x <- whole_numbers(input_shape(p))
  w <- whole_numbers(weight_shape(p))
  one <- array(x, dim(x)[-1])
  want <- oracle_forward(p, x, w)
  expect_identical(run_problem(p, one, w), array(want, dim(want)[-1]))
  native <- run_problem(p, aperm(one), aperm(w), layout = "native")
  expect_identical(aperm(native), array(want, dim(want)[-1]))
  expect_identical(as_array(run_problem(p, float32(one), w)), array(want, dim(want)[-1]))
})

test_that("an empty batch gives an empty output and gradients of zero", {
  m <- nn_conv_transpose3d(2, 3, 2, stride = 2)
  x <- array(0, c(0, 2, 3, 4, 5))
  expect_identical(dim(m(x)), c(0L, 3L, 6L, 8L, 10L))
  expect_identical(dim(m(aperm(x), layout = "native")), c(10L, 8L, 6L, 3L, 0L))
  y <- m(float32(x))
  expect_identical(y$shape, c(0L, 3L, 6L, 8L, 10L))
  y$backward(torch_zeros(0, 3, 6, 8, 10))
  expect_identical(as_array(m$weight$grad), array(0, c(2, 3, 2, 2, 2)))
  expect_identical(as_array(m$bias$grad), c(0, 0, 0))
})

test_that("out is overwritten in place and returned", {
  set.seed(25)
  m <- nn_conv_transpose3d(2, 3, 2, stride = 2)
  x <- array(rnorm(2 * 27), c(1, 2, 3, 3, 3))
  out <- array(NaN, c(1, 3, 6, 6, 6))
  alias <- out
  result <- withVisible(m(x, out = out))
  expect_false(result$visible)
  expect_identical(result$value, m(x))
  expect_identical(out, m(x))
  expect_identical(alias, out)
  native <- array(NaN, rev(dim(out)))
  m(aperm(x), out = native, layout = "native")
  expect_identical(aperm(native), out)
  target <- torch_zeros(1, 3, 6, 6, 6)
  expect_identical(m(float32(x), out = target), target)
  expect_identical(as_array(target), as_array(m(float32(x))))
  expect_false(target$requires_grad)
})

test_that("output_size chooses output_padding", {
  set.seed(26)
  x <- whole_numbers(c(1, 2, 3, 4, 2))
  w <- whole_numbers(c(2, 1, 3, 3, 3))
  for (size in list(c(5, 7, 3), c(6, 8, 4), c(5, 8, 3))) {
    got <- nnf_conv_transpose3d(x, w, stride = 2, padding = 1, output_size = size)
    p <- problem(2, 1, c(3, 4, 2), 3, 2, 1, size - c(5, 7, 3))
    expect_identical(got, oracle_forward(p, x, w))
  }
  m <- nn_conv_transpose3d(2, 1, 3, stride = 2, padding = 1)
  expect_identical(dim(m(x, output_size = c(6, 7, 4))), c(1L, 1L, 6L, 7L, 4L))
  expect_identical(dim(m(x, output_size = c(1, 1, 6, 7, 4))), c(1L, 1L, 6L, 7L, 4L))
  m$load_state_dict(list(weight = w, bias = 0))
  y <- m(float64(x)$to(torch_float()), output_size = c(6, 7, 4))
  p <- problem(2, 1, c(3, 4, 2), 3, 2, 1, c(1, 0, 1))
  expect_identical(as_array(y), oracle_forward(p, x, w))
})
