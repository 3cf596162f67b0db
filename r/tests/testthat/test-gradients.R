# Gradients: by finite differences in float64, and by what the tape must keep.

# Compares the gradients of a loss with respect to its tensors with differences.
check_gradients <- function(loss, ..., step = 1e-5) {
  values <- list(...)
  value_at <- function(values) loss_value(do.call(loss, lapply(values, float64)))
  tensors <- lapply(values, float64, requires_grad = TRUE)
  do.call(loss, tensors)$backward()
  for (i in seq_along(values)) {
    difference <- vapply(seq_along(values[[i]]), function(j) {
      moved <- function(by) {
        values[[i]][j] <- values[[i]][j] + by
        value_at(values)
      }
      (moved(step) - moved(-step)) / (2 * step)
    }, 0)
    expect_identical(tensors[[i]]$grad$shape, tensors[[i]]$shape)
    expect_equal(c(as_array(tensors[[i]]$grad)), difference, tolerance = 1e-7)
    expect_gt(max(abs(difference)), 0)
  }
}
loss_value <- function(loss) loss$item()

set.seed(30)
a <- array(runif(12, 0.5, 2), c(2, 3, 2))
b <- array(runif(12, 0.5, 2), c(2, 3, 2))
g <- array(rnorm(12), c(2, 3, 2)) # makes every element count differently
weighed <- function(x) torch_sum(x * float64(g))

test_that("arithmetic between tensors", {
  check_gradients(function(a, b) weighed(a + b), a, b)
  check_gradients(function(a, b) weighed(a - b), a, b)
  check_gradients(function(a, b) weighed(a * b), a, b)
  check_gradients(function(a, b) weighed(a / b), a, b)
  check_gradients(function(a) weighed(-a), a)
})

test_that("arithmetic with a number on either side", {
  for (number in list(3, -0.5, 2L)) {
    check_gradients(function(a) weighed(a + number), a)
    check_gradients(function(a) weighed(number + a), a)
    check_gradients(function(a) weighed(a - number), a)
    check_gradients(function(a) weighed(number - a), a)
    check_gradients(function(a) weighed(a * number), a)
    check_gradients(function(a) weighed(number * a), a)
    check_gradients(function(a) weighed(a / number), a)
    check_gradients(function(a) weighed(number / a), a)
    check_gradients(function(a) weighed(a^number), a)
  }
})

test_that("values of arithmetic are R's, in either dtype", {
  single <- function(x) as_array(float32(x))
  for (op in c("+", "-", "*", "/")) {
    f <- get(op)
    expect_identical(as_array(f(float64(a), float64(b))), f(a, b))
    expect_identical(as_array(f(float64(a), 3)), f(a, 3))
    expect_identical(as_array(f(3, float64(a))), f(3, a))
    expect_identical(as_array(f(float32(a), float32(b))), single(f(single(a), single(b))))
    expect_identical(as_array(f(3, float32(a))), single(f(3, single(a))))
  }
  expect_equal(as_array(float64(a)^3), a^3)
  expect_identical(as_array(-float64(a)), -a)
  expect_identical(as_array(+float64(a)), a)
})

test_that("powers at zero", {
  x <- float64(c(0, 2), requires_grad = TRUE)
  for (case in list(list(0, c(0, 0)), list(1, c(1, 1)), list(2, c(0, 4)), list(3, c(0, 12)))) {
    x$grad <- NULL
    torch_sum(x^case[[1]])$backward()
    expect_identical(as_array(x$grad), case[[2]])
  }
})

test_that("sum, mean, relu, the squared error and dtypes", {
  check_gradients(function(a) torch_sum(a * a), a)
  check_gradients(function(a) torch_mean(a * a), a)
  check_gradients(function(a) sum(a * a) + mean(a) + (a * 3)$sum() + a$mean(), a)
  check_gradients(function(a) weighed(nnf_relu(a - 1)), a)
  check_gradients(function(a, b) nnf_mse_loss(a, b), a, b)
  check_gradients(function(a, b) nnf_mse_loss(a, b, reduction = "sum"), a, b)
  check_gradients(function(a, b) weighed(nnf_mse_loss(a, b, reduction = "none")), a, b)
  check_gradients(function(a) weighed(a$clone() * a), a)
  x <- float32(a)$requires_grad_()
  weighed(x$to(torch_double())^2)$backward()
  expect_identical(x$grad$dtype, torch_float())
  expect_equal(as_array(x$grad), 2 * a * g, tolerance = 1e-6)
  expect_equal(nnf_mse_loss(float64(a), float64(b))$item(), mean((a - b)^2))
  expect_equal(nnf_mse_loss(float64(a), float64(b), "sum")$item(), sum((a - b)^2))
  expect_equal(torch_mean(float64(a))$item(), mean(a))
  expect_identical(torch_sum(float32(rep(1, 5)))$shape, integer())
})

test_that("relu is 0 at 0, keeps NaN, and takes arrays", {
  x <- float64(c(-1, 0, 2, NaN), requires_grad = TRUE)
  y <- nnf_relu(x)
  expect_identical(as_array(y), c(0, 0, 2, NaN))
  y$backward(float64(c(1, 1, 1, 1)))
  expect_identical(as_array(x$grad)[1:3], c(0, 0, 1))
  expect_identical(nnf_relu(c(-1, 2)), c(0, 2))
})

test_that("the layer in all padding modes", {
  for (mode in c("zeros", "reflect", "replicate", "circular")) {
    p <- problem(2, 4, c(2, 3, 2), c(3, 2, 3), c(2, 1, 2), c(1, 0, 0, 1, 1, 1), c(1, 0, 0), 2,
                 c(1, 2, 1), mode, 2)
    g <- float64(array(rnorm(prod(output_shape(p))), output_shape(p)))
    check_gradients(function(x, w, b) torch_sum(run_problem(p, x, w, b)^2 * g),
                    array(rnorm(prod(input_shape(p))), input_shape(p)),
                    array(rnorm(prod(weight_shape(p))), weight_shape(p)), rnorm(4), step = 1e-4)
  }
})

test_that("the layer without a bias, with output_size, and without a batch", {
  x <- array(rnorm(2 * 8), c(2, 2, 2, 2))
  w <- array(rnorm(2 * 3 * 8), c(2, 3, 2, 2, 2))
  check_gradients(function(x, w) {
    torch_sum(nnf_conv_transpose3d(x, w, stride = 3, output_size = c(5, 6, 7))^2)
  }, x, w, step = 1e-4)
})

test_that("m$backward() is what the tape computes", {
  set.seed(31)
  m <- nn_conv_transpose3d(2, 3, 3, stride = 2, padding = 1)
  x <- torch_tensor(array(rnorm(2 * 54), c(2, 2, 3, 3, 3)), requires_grad = TRUE)
  y <- m(x)
  dy <- torch_tensor(array(rnorm(length(y)), dim(y)))
  y$backward(dy)
  dw <- bytes_of(m$weight$grad)
  db <- bytes_of(m$bias$grad)
  m$zero_grad()
  dx <- m$backward(x, dy)
  same_bytes(dx, x$grad)
  expect_identical(bytes_of(m$weight$grad), dw)
  expect_identical(bytes_of(m$bias$grad), db)
  once <- as_array(m$weight$grad)
  m$backward(x, dy)
  expect_identical(as_array(m$weight$grad), 2 * once)
})

test_that("gradients add up until zero_grad()", {
  m <- nn_conv_transpose3d(1, 1, 2)
  x <- torch_ones(1, 1, 2, 2, 2)
  torch_sum(m(x))$backward()
  once <- as_array(m$weight$grad)
  expect_identical(once, array(8, c(1, 1, 2, 2, 2)))
  expect_identical(as_array(m$bias$grad), 27)
  torch_sum(m(x))$backward()
  expect_identical(as_array(m$weight$grad), 2 * once)
  m$zero_grad()
  expect_null(m$weight$grad)
  expect_null(m$bias$grad)
  torch_sum(m(x))$backward()
  expect_identical(as_array(m$weight$grad), once)
  expect_null(x$grad)
})

test_that("only what wants a gradient gets one", {
  x <- float64(1:3, requires_grad = TRUE)
  y <- float64(4:6)
  torch_sum(x * y)$backward()
  expect_identical(as_array(x$grad), c(4, 5, 6))
  expect_null(y$grad)
  m <- nn_conv_transpose3d(1, 2, 2)
  m$bias$requires_grad_(FALSE)
  torch_sum(m(torch_ones(1, 1, 2, 2, 2)))$backward()
  expect_null(m$bias$grad)
  expect_identical(m$weight$grad$shape, m$weight$shape)
  m$weight$requires_grad_(FALSE)
  expect_false(m(torch_ones(1, 1, 2, 2, 2))$requires_grad)
})

test_that("a tensor used twice, in diamonds and chains", {
  check_gradients(function(a) weighed(a * a), a)
  check_gradients(function(a) {
    left <- a * 2
    right <- a^2
    weighed(left * right + left / right)
  }, a)
})

test_that("backward meets each node once, after all that came of it", {
  met <- 0
  counted <- function(x) {
    convt3d:::result_of("counted", list(x), x$detach()$item(), double(), function(g, wanted) {
      met <<- met + 1
      list(g)
    })
  }
  x <- float64(1, requires_grad = TRUE)
  y <- torch_sum(x)
  for (i in 1:10) { # 3^10 paths
    y <- counted(y)
    y <- y + y * 2
  }
  y$backward()
  expect_identical(as_array(x$grad), 3^10)
  expect_identical(met, 10)
})

test_that("a tensor of two losses gets both", {
  x <- float64(c(1, 2), requires_grad = TRUE)
  y <- x * 3
  torch_sum(y)$backward()
  torch_sum(y * y)$backward()
  expect_identical(as_array(x$grad), 3 + 18 * c(1, 2))
  expect_null(y$grad)
})

test_that("backward takes a gradient, of the tensor's shape", {
  x <- float64(c(1, 2, 3), requires_grad = TRUE)
  y <- x * 2
  y$backward(float64(c(1, 10, 100)))
  expect_identical(as_array(x$grad), c(2, 20, 200))
  y$backward(c(1, 1, 1))
  expect_identical(as_array(x$grad), c(4, 22, 202))
  expect_refused(y$backward(), "gradient", "3")
  expect_refused(y$backward(float64(1:2)), "gradient has shape (2)", "(3)")
  expect_refused(y$backward("a"), "gradient")
  expect_refused(float64(1)$backward(), "backward()", "requires a gradient")
  expect_identical(as_array(x$grad), c(4, 22, 202))
})

test_that("with_no_grad() records nothing, and lasts no longer than its code", {
  x <- float64(1, requires_grad = TRUE)
  expect_false(with_no_grad(x * 2)$requires_grad)
  m <- nn_conv_transpose3d(1, 1, 1)
  expect_false(with_no_grad(m(torch_ones(1, 1, 1, 1)))$requires_grad)
  try(with_no_grad(stop("out of it")), silent = TRUE)
  with_no_grad(with_no_grad(NULL))
  expect_true((x * 2)$requires_grad)
  expect_identical(with_no_grad(3), 3)
  inside <- with_no_grad({
    with_no_grad(NULL)
    x * 2
  })
  expect_false(inside$requires_grad)
  expect_false((x * 2)$detach()$requires_grad)
})

test_that("gradients aren't recorded themselves", {
  x <- float64(1, requires_grad = TRUE)
  x$grad <- float64(2, requires_grad = TRUE)
  (x * 3)$backward()
  expect_identical(x$grad$item(), 5)
  expect_false(x$grad$requires_grad)
})

test_that("what was computed is not changed by later writes", {
  w <- float64(c(1, 2), requires_grad = TRUE)
  y <- torch_sum(w * 3)
  with_no_grad(w$copy_(c(5, 6)))
  y$backward()
  expect_identical(as_array(w$grad), c(3, 3))
  expect_identical(as_array(w), c(5, 6))
})

test_that("operands that make no sense", {
  x <- float64(1:3)
  expect_refused(x + 1:3, "operand", "one number")
  expect_refused(x + "a", "operand", "\"a\"")
  expect_refused(TRUE * x, "operand")
  expect_refused(x + float64(1:2), "(2)", "(3)")
  expect_refused(2^x, "exponent")
  expect_refused(x^x, "exponent")
  expect_refused(x %% 2, "%%")
  expect_refused(x == 1, "==")
  expect_refused(max(x), "max")
  expect_refused(torch_sum(1), "input", "tensor")
  expect_refused(torch_mean("a"), "input", "tensor")
  expect_refused(nnf_mse_loss(x, 1:3), "target", "tensor")
  expect_refused(nnf_mse_loss(x, x, "median"), "reduction", "mean", "sum", "none")
  expect_refused(nnf_mse_loss(x, float64(1:2)), "shape")
})

test_that("writing into operands afterwards changes no gradient", {
  a <- float64(c(1, 2), requires_grad = TRUE)
  b <- float64(c(3, 4))
  loss <- torch_sum(a * b)
  b$zero_()
  loss$backward()
  expect_identical(as_array(a$grad), c(3, 4))
  a <- float64(c(-1, 2), requires_grad = TRUE)
  loss <- torch_sum(nnf_relu(a))
  with_no_grad(a$copy_(c(5, -5)))
  loss$backward()
  expect_identical(as_array(a$grad), c(0, 1))
  m <- nn_conv_transpose3d(1, 1, 1, bias = FALSE)
  x <- float32(array(1:8, c(1, 1, 2, 2, 2)))
  loss <- torch_sum(m(x))
  m(x * 0, out = x)
  loss$backward()
  expect_identical(as.double(as_array(m$weight$grad)), 36)
})

test_that("an out forgets how it was made before", {
  m <- nn_conv_transpose3d(1, 1, 2)
  x <- torch_randn(1, 1, 2, 2, 2)
  y <- m(x)
  m(x * 2, out = y)
  expect_equal(as_array(y), as_array(m(x * 2)))
  expect_false(y$requires_grad)
  expect_refused(torch_sum(y)$backward(), "requires a gradient")
  leaf <- torch_zeros(1, 1, 3, 3, 3, requires_grad = TRUE)
  expect_refused(m(x, out = leaf), "out requires a gradient")
  with_no_grad(m(x, out = leaf))
  expect_true(leaf$requires_grad)
  expect_refused(m(x)$zero_(), "$detach()")
})

test_that("the gradients of two tensors are two tensors", {
  a <- float64(1, requires_grad = TRUE)
  b <- float64(2, requires_grad = TRUE)
  torch_sum(a + b)$backward()
  a$grad$zero_()
  expect_identical(b$grad$item(), 1)
})

test_that("an out never reaches another tensor", {
  m <- nn_conv_transpose3d(1, 1, 1)
  x <- torch_randn(1, 1, 2, 2, 2)
  source <- torch_randn(1, 1, 2, 2, 2)
  before <- as_array(source)
  m(x, out = torch_zeros(1, 1, 2, 2, 2)$copy_(source))
  m(x, out = source$detach())
  p <- torch_zeros(1, 1, 2, 2, 2, requires_grad = TRUE)
  (p * 1)$backward(source)
  m(x, out = p$grad)
  expect_identical(as_array(source), before)
})

test_that("gradients at the ends of the range", {
  for (scale in c(1e25, 1e-25)) {
    b <- torch_tensor(scale, requires_grad = TRUE)
    torch_sum(float32(1e30 * scale / 1e25) / b)$backward()
    expect_equal(b$grad$item(), -1e5 / scale, tolerance = 1e-6)
  }
  u <- float64(c(-1, 1), requires_grad = TRUE)
  nnf_relu(u)$backward(float64(c(Inf, 2)))
  expect_identical(as_array(u$grad), c(0, 2))
})

test_that("what requires a gradient is decided when the operation is recorded", {
  x <- float64(2)
  w <- float64(3, requires_grad = TRUE)
  loss <- torch_sum(x * w)
  x$requires_grad_(TRUE)
  loss$backward()
  expect_null(x$grad)
  expect_identical(w$grad$item(), 2)
})

test_that("sum, relu and the loss name what they can't take", {
  x <- float64(1:2)
  expect_refused(sum(x, x), "alone")
  expect_refused(nnf_relu("a"), "input is \"a\"")
  expect_refused(nnf_mse_loss(x, float64(1:3)), "target has shape (3)")
})
