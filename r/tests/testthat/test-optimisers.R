# Optimisers against the published formulas, written down here once more.

steps <- 6
start <- c(1.5, -2, 0.25)
targets <- c(0.5, 1, -3)

# The gradient of sum((p - targets)^2 * c(1, 2, 3)).
slope <- function(p) 2 * (p - targets) * c(1, 2, 3)
loss_of <- function(p) torch_sum((p - float64(targets))^2 * float64(c(1, 2, 3)))

# Where an optimiser is after each step.
path_of <- function(make) {
  p <- float64(start, requires_grad = TRUE)
  optimizer <- make(list(p))
  vapply(seq_len(steps), function(i) {
    optimizer$zero_grad()
    loss_of(p)$backward()
    optimizer$step()
    as_array(p)
  }, start)
}

# PyTorch's documentation of SGD.
sgd_path <- function(lr, momentum = 0, dampening = 0, weight_decay = 0, nesterov = FALSE) {
  p <- start
  buffer <- NULL
  vapply(seq_len(steps), function(t) {
    g <- slope(p) + weight_decay * p
    if (momentum != 0) {
      buffer <<- if (t > 1) momentum * buffer + (1 - dampening) * g else g
      g <- if (nesterov) g + momentum * buffer else buffer
    }
    p <<- p - lr * g
    p
  }, start)
}

# Kingma and Ba, algorithm 1; amsgrad as in Reddi et al. and PyTorch.
adam_path <- function(lr = 0.001, betas = c(0.9, 0.999), eps = 1e-8, weight_decay = 0,
                      amsgrad = FALSE) {
  p <- start
  m <- v <- most <- 0 * start
  vapply(seq_len(steps), function(t) {
    g <- slope(p) + weight_decay * p
    m <<- betas[1] * m + (1 - betas[1]) * g
    v <<- betas[2] * v + (1 - betas[2]) * g * g
    most <<- pmax(most, v)
    used <- if (amsgrad) most else v
    p <<- p - lr * (m / (1 - betas[1]^t)) / (sqrt(used / (1 - betas[2]^t)) + eps)
    p
  }, start)
}

test_that("stochastic gradient descent", {
  cases <- list(list(lr = 0.05), list(lr = 0.05, momentum = 0.9),
                list(lr = 0.02, momentum = 0.8, dampening = 0.3),
                list(lr = 0.05, momentum = 0.7, nesterov = TRUE),
                list(lr = 0.05, weight_decay = 0.1),
                list(lr = 0.03, momentum = 0.5, weight_decay = 0.2, nesterov = TRUE))
  paths <- lapply(cases, function(case) {
    got <- path_of(function(params) do.call(optim_sgd, c(list(params), case)))
    expect_equal(got, do.call(sgd_path, case), tolerance = 1e-13)
    got
  })
  expect_identical(anyDuplicated(paths), 0L)
})

test_that("adam", {
  cases <- list(list(), list(lr = 0.1), list(lr = 0.1, betas = c(0.5, 0.6)),
                list(lr = 0.1, eps = 0.5), list(lr = 0.1, weight_decay = 0.3),
                list(lr = 0.8, betas = c(0.1, 0.2), amsgrad = TRUE),
                list(lr = 0.8, betas = c(0.1, 0.2)))
  paths <- lapply(cases, function(case) {
    got <- path_of(function(params) do.call(optim_adam, c(list(params), case)))
    expect_equal(got, do.call(adam_path, case), tolerance = 1e-13)
    got
  })
  expect_identical(anyDuplicated(paths), 0L)
})

test_that("float32 parameters stay float32, and follow the same path", {
  p <- float32(start)$requires_grad_()
  optimizer <- optim_adam(p, lr = 0.1)
  for (i in seq_len(steps)) {
    optimizer$zero_grad()
    torch_sum((p - float32(targets))^2 * float32(c(1, 2, 3)))$backward()
    optimizer$step()
  }
  expect_identical(p$dtype, torch_float())
  expect_equal(as_array(p), adam_path(lr = 0.1)[, steps], tolerance = 1e-5)
})

test_that("parameters are kept apart, and those without a gradient left alone", {
  a <- float64(start, requires_grad = TRUE)
  b <- float64(7, requires_grad = TRUE)
  c <- float64(start + 1, requires_grad = TRUE)
  optimizer <- optim_sgd(list(a = a, b = b, c = c), lr = 0.05, momentum = 0.9)
  for (i in 1:2) {
    optimizer$zero_grad()
    (loss_of(a) + loss_of(c))$backward()
    optimizer$step()
  }
  expect_equal(as_array(a), sgd_path(0.05, 0.9)[, 2])
  expect_identical(b$item(), 7)
  expect_false(isTRUE(all.equal(as_array(c), as_array(a))))
  optimizer$zero_grad()
  expect_null(a$grad)
  held <- as_array(a)
  optimizer$lr <- 0
  loss_of(a)$backward()
  optimizer$step()
  expect_identical(as_array(a), held)
  expect_identical(a$requires_grad, TRUE)
  expect_true(a$is_leaf)
  expect_output(print(optimizer), "optim_sgd with lr = 0", fixed = TRUE)
})

test_that("training a layer lowers its loss", {
  torch_manual_seed(5)
  for (make in list(function(p) optim_sgd(p, lr = 0.2, momentum = 0.5),
                    function(p) optim_adam(p, lr = 0.05))) {
    teacher <- nn_conv_transpose3d(1, 2, 2, stride = 2)
    m <- nn_sequential(nn_conv_transpose3d(1, 2, 2, stride = 2))
    x <- torch_randn(4, 1, 3, 3, 3)
    target <- with_no_grad(teacher(x))
    optimizer <- make(m$parameters)
    losses <- vapply(1:60, function(i) {
      optimizer$zero_grad()
      loss <- nnf_mse_loss(m(x), target)
      loss$backward()
      optimizer$step()
      loss$item()
    }, 0)
    expect_lt(losses[60], 0.05 * losses[1])
  }
})

test_that("a tensor is in params once", {
  a <- float64(1, requires_grad = TRUE)
  b <- float64(1, requires_grad = TRUE)
  expect_refused(optim_sgd(list(x = b, y = a, z = a), 0.1), "params", "number 2", "number 3")
  expect_refused(optim_adam(list(a, b, a)), "params", "number 1", "number 3")
  optim_adam(list(a, b))
})

test_that("lr is checked when it is assigned, and nothing else can be", {
  a <- float64(1, requires_grad = TRUE)
  optimizer <- optim_sgd(list(a), 0.5)
  for (bad in list("a", NULL, NA, -1, c(1, 2), structure(1, class = "integer64"))) {
    expect_refused(optimizer$lr <- bad, "lr is", "must be a number from 0")
    expect_refused(optimizer[["lr"]] <- bad, "lr is", "must be a number from 0")
  }
  expect_identical(optimizer$lr, 0.5)
  expect_refused(optimizer$momentum <- 1, "'momentum'")
  expect_refused(optimizer$step <- NULL, "'step'")
  optimizer[["lr"]] <- 2L
  expect_identical(optimizer$lr, 2)
  torch_sum(a)$backward()
  optimizer$step()
  expect_identical(a$item(), -1)
})

test_that("arguments of optimisers", {
  p <- list(float64(1, requires_grad = TRUE))
  for (bad in list(NULL, list(), 1, list(1), "a", list(p[[1]], NULL))) {
    expect_refused(optim_sgd(bad, 0.1), "params", "list of tensors")
    expect_refused(optim_adam(bad), "params", "list of tensors")
  }
  for (bad in list(-1, NA, "a", NULL, c(1, 2), NaN, structure(1, class = "integer64"))) {
    expect_refused(optim_sgd(p, bad), "lr")
    expect_refused(optim_sgd(p, 0.1, momentum = bad), "momentum")
    expect_refused(optim_sgd(p, 0.1, weight_decay = bad), "weight_decay")
    expect_refused(optim_adam(p, lr = bad), "lr")
    expect_refused(optim_adam(p, eps = bad), "eps")
    expect_refused(optim_adam(p, weight_decay = bad), "weight_decay")
  }
  expect_refused(optim_sgd(p, 0.1, dampening = "a"), "dampening")
  expect_refused(optim_sgd(p, 0.1, nesterov = TRUE), "nesterov", "momentum")
  expect_refused(optim_sgd(p, 0.1, 0.9, 0.1, nesterov = TRUE), "nesterov", "dampening")
  expect_refused(optim_sgd(p, 0.1, nesterov = NA), "nesterov")
  expect_refused(optim_adam(p, amsgrad = 1), "amsgrad")
  for (bad in list(0.9, c(0.9, 1), c(-0.1, 0.9), c(NA, 0.9), "a", NULL, list(0.9, 0.9),
                   structure(c(0.5, 0.5), class = "integer64"))) {
    expect_refused(optim_adam(p, betas = bad), "betas", "0 to below 1")
  }
  expect_refused(optim_sgd(p), "lr")
})
