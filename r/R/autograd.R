# autograd: a reverse-mode tape over what training this layer needs.
#
# An operation that has an input which requires a gradient leaves a node in its
# result: the operation's name, its input tensors, and a function that turns the
# gradient of the result into those of the inputs (NULL where none is needed).
# Numbers of tensors (their ids) rise with time, so going through them from the
# highest to the lowest meets every result before its inputs.

#' Gradients
#'
#' `loss$backward()` computes the gradients of `loss` with respect to every tensor
#' that requires one and took part in it, and adds them to those tensors' `grad`.
#'
#' Recorded are this package's layer, `+ - * / ^` and unary `-` between tensors of
#' one shape or with one number, [torch_sum()], [torch_mean()], [nnf_relu()] and
#' [nnf_mse_loss()]. The gradient of a relu at 0 is 0. It is not a second torch:
#' there is no broadcasting, no indexing and no gradient of a gradient.
#'
#' `x$backward(gradient)` is for a tensor with several elements: `gradient` is the
#' gradient of some later loss with respect to `x`. Gradients add up from call to
#' call until `zero_grad()` of a module or optimiser. What backward() needs of the
#' forward pass is kept as long as its result is.
#'
#' @param code code that is to run without being recorded.
#' @return `with_no_grad()`: the value of `code`.
#' @references Griewank and Walther (2008), Evaluating Derivatives, chapter 3: the
#'   reverse mode.
#' @examples
#' w <- torch_tensor(c(1, 2, 3), requires_grad = TRUE)
#' loss <- torch_sum(w^2)
#' loss$backward()
#' w$grad
#' with_no_grad(w * 2)$requires_grad
#' @name autograd
NULL

#' @rdname autograd
#' @export
with_no_grad <- function(code) {
  before <- state$recording
  on.exit(state$recording <- before)
  state$recording <- FALSE
  force(code)
}

wants_grad <- function(x) is_tensor(x) && field(x, "requires_grad")
records <- function(inputs) {
  state$recording && any(vapply(inputs, wants_grad, NA))
}

# The result of an operation. 'backward' takes the gradient of the result, a
# tensor without a node, and which inputs want theirs; it gives a list of those.
# What it needs of the inputs it must have taken by now: they may be written to.
result_of <- function(name, inputs, data, shape, backward) {
  if (!records(inputs)) return(new_tensor(data, shape))
  for (input in inputs) settle(input)
  wanted <- vapply(inputs, wants_grad, NA)
  new_tensor(data, shape, TRUE,
             list(name = name, inputs = inputs, wanted = wanted, backward = backward))
}

# What readRDS() or another process brought has numbers of elsewhere, which may be those of
# other tensors here: it gets new ones, in their old order.
settle <- function(tensor) {
  foreign <- list()
  stack <- list(tensor)
  while (length(stack)) {
    x <- stack[[1]]
    stack[1] <- NULL
    if (!is_tensor(x) || identical(field(x, "session"), state$session)) next
    assign("session", state$session, envir = x)
    foreign <- c(foreign, list(x))
    stack <- c(stack, field(x, "node")$inputs)
  }
  for (x in foreign[order(vapply(foreign, field, 0, "id"))]) set_id(x)
}

run_backward <- function(root, gradient) {
  settle(root)
  if (!field(root, "requires_grad")) {
    refuse("backward() needs a tensor that was computed from one that requires a gradient")
  }
  if (is.null(gradient)) {
    if (element_count(root) != 1) {
      refuse("gradient is missing, and only a tensor of one element can do without; this one has ",
             element_count(root))
    }
    gradient <- torch_ones(field(root, "shape"))
  }
  seed <- torch_zeros(field(root, "shape"), dtype = root$dtype)
  set_data(seed, gradient, "gradient")
  with_no_grad(propagate(root, seed))
  invisible(NULL)
}

propagate <- function(root, seed) {
  pending <- list() # by id: list(tensor, gradient)
  pending[[key_of(root)]] <- list(root, seed)
  while (length(pending)) {
    latest <- names(pending)[which.max(as.double(names(pending)))]
    tensor <- pending[[latest]][[1]]
    gradient <- pending[[latest]][[2]]
    pending[[latest]] <- NULL
    node <- field(tensor, "node")
    if (is.null(node)) {
      add_to_grad(tensor, gradient)
      next
    }
    gradients <- node$backward(gradient, node$wanted)
    for (i in seq_along(node$inputs)) {
      input <- node$inputs[[i]]
      if (!node$wanted[i]) next
      key <- key_of(input)
      so_far <- pending[[key]][[2]]
      sum <- if (is.null(so_far)) gradients[[i]] else so_far + gradients[[i]]
      pending[[key]] <- list(input, sum)
    }
  }
}

key_of <- function(tensor) format(field(tensor, "id"), digits = 15)

# A tensor of its own, since the same gradient may go to several.
add_to_grad <- function(tensor, gradient) {
  so_far <- field(tensor, "grad")
  sum <- if (is.null(so_far)) snapshot(gradient) else plain("+", so_far, gradient)
  assign("grad", sum, envir = tensor)
}

# ---- Arithmetic ------------------------------------------------------------------

arithmetic <- function(op, a, b) .Call(C_arithmetic, op, a, b)

# Tensors, or data of one, as new tensors without a node.
plain <- function(op, a, b) {
  like <- if (is_tensor(a)) a else b
  numbers <- function(x) if (is_tensor(x)) field(x, "data") else x
  new_tensor(arithmetic(op, numbers(a), numbers(b)), field(like, "shape"))
}

# The gradients of a op b with respect to a and to b, given g, that of the result.
rules <- list(
  `+` = list(function(g, a, b) g, function(g, a, b) g),
  `-` = list(function(g, a, b) g, function(g, a, b) plain("*", g, -1)),
  `*` = list(function(g, a, b) plain("*", g, b), function(g, a, b) plain("*", g, a)),
  `/` = list(function(g, a, b) plain("/", g, b),
             function(g, a, b) plain("*", plain("/", plain("*", g, plain("/", a, b)), b), -1)),
  `^` = list(function(g, a, b) {
    plain("*", plain("*", g, b), plain("^", a, if (b == 0) 0 else b - 1)) # 0 * 0^-1 is no 0
  })
)

operand <- function(x, op) {
  if (is_tensor(x)) return(x)
  if (!is.numeric(x) || length(x) != 1) {
    refuse("an operand of '", op, "' is ", show_value(x),
           ", but must be a tensor or one number")
  }
  as.double(x)
}

#' @export
Ops.convt3d_tensor <- function(e1, e2) {
  if (!.Generic %in% names(rules)) refuse("'", .Generic, "' is not defined for tensors")
  if (missing(e2)) return(if (.Generic == "-") e1 * -1 else e1)
  a <- operand(e1, .Generic)
  b <- operand(e2, .Generic)
  if (.Generic == "^" && is_tensor(b)) refuse("the exponent of a tensor must be one number")
  if (is_tensor(a) && is_tensor(b)) {
    same_shape("the right operand", field(b, "shape"), field(a, "shape"))
    if (dtype_name(a) != dtype_name(b)) {
      refuse("operands of '", .Generic, "' are of ", dtype_name(a), " and ", dtype_name(b),
             "; bring them to one dtype with $to()")
    }
  }
  op <- .Generic
  inputs <- list(a, b)
  value <- plain(op, a, b)
  now <- lapply(inputs, snapshot)
  result_of(op, inputs, field(value, "data"), field(value, "shape"), function(g, wanted) {
    lapply(1:2, function(i) if (wanted[i]) rules[[op]][[i]](g, now[[1]], now[[2]]))
  })
}

cast <- function(x, name) {
  before <- dtype_name(x)
  result_of("to", list(x), as_dtype(x, name), field(x, "shape"),
            function(g, wanted) list(new_tensor(as_dtype(g, before), field(g, "shape"))))
}

# ---- Reductions -------------------------------------------------------------------

need_tensor <- function(x, name) {
  if (!is_tensor(x)) refuse(name, " is ", show_value(x), ", but must be a tensor")
  x
}

filled <- function(value, like) {
  new_tensor(arithmetic("*", field(torch_ones(field(like, "shape"), dtype = like$dtype), "data"),
                        value), field(like, "shape"))
}

#' Sum and mean of a tensor
#'
#' Of all elements, added in double precision. `sum(x)` and `mean(x)` are the same.
#'
#' @param input,x a tensor.
#' @param ... not used.
#' @return A tensor of shape ().
#' @examples
#' torch_mean(torch_tensor(c(1, 2, 6)))$item()
#' @export
torch_sum <- function(input) {
  need_tensor(input, "input")
  total <- convert(list(.Call(C_sum, field(input, "data")), double(), FALSE), dtype_name(input),
                   FALSE)
  like <- snapshot(input)
  result_of("sum", list(input), total, double(),
            function(g, wanted) list(filled(as.double(g), like)))
}

#' @rdname torch_sum
#' @export
torch_mean <- function(input) torch_sum(input) / element_count(need_tensor(input, "input"))

#' @rdname torch_sum
#' @export
mean.convt3d_tensor <- function(x, ...) torch_mean(x)

#' @export
Summary.convt3d_tensor <- function(..., na.rm = FALSE) {
  if (.Generic != "sum") refuse("'", .Generic, "' is not defined for tensors")
  if (...length() != 1) refuse("sum() of a tensor takes that tensor alone")
  torch_sum(..1)
}

# ---- Functions ---------------------------------------------------------------------

#' Rectifier and mean squared error
#'
#' `nnf_relu()` is max(input, 0), element by element; `nn_relu()` is the same as a
#' module, for [nn_sequential()]. `nnf_mse_loss()` is the mean (or sum) of the
#' squared differences, as a tensor of shape (), or all of them.
#'
#' @param input a tensor (for the rectifier also an array).
#' @param target a tensor of the input's shape.
#' @param reduction (string): "mean", "sum" or "none".
#' @return A tensor.
#' @examples
#' x <- torch_tensor(c(-1, 2))
#' nnf_relu(x)
#' nnf_mse_loss(x, torch_zeros(2))$item()
#' @export
nnf_relu <- function(input) {
  if (is.numeric(input)) return(pmax(input, 0))
  data <- arithmetic("m", field(need_tensor(input, "input"), "data"), 0)
  now <- snapshot(input)
  result_of("relu", list(input), data, field(input, "shape"),
            function(g, wanted) list(plain("s", g, now)))
}

#' @rdname nnf_relu
#' @export
nnf_mse_loss <- function(input, target, reduction = "mean") {
  reduction <- one_of(reduction, "reduction", c("mean", "sum", "none"))
  same_shape("target", field(need_tensor(target, "target"), "shape"),
             field(need_tensor(input, "input"), "shape"))
  squares <- (input - target)^2
  switch(reduction, mean = torch_mean(squares), sum = torch_sum(squares), none = squares)
}
