# optim: two optimisers. Their sums are in double precision; parameters keep their
# own dtype.

#' Optimisers
#'
#' `optimizer$step()` moves each parameter against its `grad`;
#' `optimizer$zero_grad()` forgets the gradients. Arguments and results are
#' PyTorch's.
#'
#' @param params a list of tensors, such as `m$parameters`, each there once.
#' @param lr (number): the learning rate.
#' @param momentum,dampening,nesterov (numbers, bool): stochastic gradient descent
#'   with momentum: v = momentum v + (1 - dampening) g.
#' @param weight_decay (number): adds that many times the parameter to its gradient.
#' @param betas (two numbers): how fast the averages of g and of its square forget.
#' @param eps (number): added to the square root that divides.
#' @param amsgrad (bool): divides by the largest average so far.
#' @return An optimiser: `$step()`, `$zero_grad()`, and `$lr`, which can be assigned.
#' @references Kingma and Ba (2015), Adam: a method for stochastic optimization,
#'   arXiv:1412.6980; Reddi et al. (2018), On the convergence of Adam and beyond.
#' @examples
#' w <- torch_tensor(c(3, -2), requires_grad = TRUE)
#' optimizer <- optim_sgd(list(w), lr = 0.1)
#' for (i in 1:50) {
#'   optimizer$zero_grad()
#'   torch_sum(w^2)$backward()
#'   optimizer$step()
#' }
#' round(as_array(w), 4)
#' @export
optim_sgd <- function(params, lr, momentum = 0, dampening = 0, weight_decay = 0,
                      nesterov = FALSE) {
  momentum <- number(momentum, "momentum", 0)
  dampening <- number(dampening, "dampening")
  decay <- number(weight_decay, "weight_decay", 0)
  if (flag(nesterov, "nesterov") && (momentum == 0 || dampening != 0)) {
    refuse("nesterov is TRUE, which needs momentum above 0 and dampening 0")
  }
  update <- function(value, g, memory, lr) {
    g <- g + decay * value
    if (momentum > 0) {
      v <- memory$v
      v <- if (is.null(v)) g else momentum * v + (1 - dampening) * g
      memory$v <- v
      g <- if (nesterov) g + momentum * v else v
    }
    list(value - lr * g, memory)
  }
  new_optimizer("optim_sgd", params, lr, update)
}

#' @rdname optim_sgd
#' @export
optim_adam <- function(params, lr = 0.001, betas = c(0.9, 0.999), eps = 1e-8, weight_decay = 0,
                       amsgrad = FALSE) {
  if (!is_plain_numeric(betas) || length(betas) != 2 || anyNA(betas) ||
        any(betas < 0 | betas >= 1)) {
    refuse("betas is ", show_value(betas), ", but must be two numbers from 0 to below 1")
  }
  eps <- number(eps, "eps", 0)
  decay <- number(weight_decay, "weight_decay", 0)
  flag(amsgrad, "amsgrad")
  update <- function(value, g, memory, lr) {
    if (is.null(memory)) memory <- list(m = 0, v = 0, largest = 0, t = 0)
    g <- g + decay * value
    memory$t <- memory$t + 1
    memory$m <- betas[1] * memory$m + (1 - betas[1]) * g
    memory$v <- betas[2] * memory$v + (1 - betas[2]) * g^2
    memory$largest <- pmax(memory$largest, memory$v)
    v <- if (amsgrad) memory$largest else memory$v
    step <- memory$m / (1 - betas[1]^memory$t)
    list(value - lr * step / (sqrt(v / (1 - betas[2]^memory$t)) + eps), memory)
  }
  new_optimizer("optim_adam", params, lr, update)
}

# 'update' takes a parameter's value, gradient and memory (NULL at first) and the
# learning rate, and gives the new value and memory.
new_optimizer <- function(class, params, lr, update) {
  if (is_tensor(params)) params <- list(params)
  if (!is.list(params) || !length(params) || !all(vapply(params, is_tensor, NA))) {
    refuse("params must be a list of tensors, such as m$parameters")
  }
  refuse_twice(params)
  self <- new.env(parent = emptyenv())
  self$lr <- number(lr, "lr", 0)
  memories <- vector("list", length(params))
  self$step <- function() {
    for (i in seq_along(params)) {
      p <- params[[i]]
      g <- field(p, "grad")
      if (is.null(g)) next
      new <- update(as_dtype(p, "float64"), as_dtype(g, "float64"), memories[[i]], self$lr)
      memories[i] <<- list(new[[2]])
      set_data(p, new_tensor(new[[1]], field(p, "shape")))
    }
    invisible(NULL)
  }
  self$zero_grad <- function() {
    for (p in params) assign("grad", NULL, envir = p)
    invisible(NULL)
  }
  class(self) <- c(class, "convt3d_optimizer")
  self
}

# It would be moved twice in a step.
refuse_twice <- function(params) {
  params <- unname(params)
  again <- anyDuplicated(params)
  if (again) {
    first <- which(vapply(params, identical, NA, params[[again]]))[1]
    refuse("params has one tensor as its number ", first, " and its number ", again,
           ", but must have each once")
  }
}

#' @export
`$<-.convt3d_optimizer` <- function(x, name, value) {
  if (!identical(name, "lr")) refuse("'", name, "' of an optimiser can't be assigned to")
  assign("lr", number(value, "lr", 0), envir = x)
  x
}

#' @export
`[[<-.convt3d_optimizer` <- `$<-.convt3d_optimizer`

#' @export
print.convt3d_optimizer <- function(x, ...) {
  cat(class(x)[1], " with lr = ", format(x$lr), "\n", sep = "")
  invisible(x)
}
