# tensor: float32 (or float64) data with a shape, in row-major order.
#
# A tensor is an environment, so that a gradient that backward() writes into it is
# seen by everyone who holds it.  Its fields: data (a raw vector of float32, or a
# double vector), shape (doubles), shared (whether data may be held elsewhere, so
# that it must be replaced, not written to), requires_grad, grad (a tensor or NULL), node
# (what autograd.R knows of its making, or NULL), id (rising with its making) and session
# (in which the id was given).

new_tensor <- function(data, shape, requires_grad = FALSE, node = NULL) {
  tensor <- new.env(parent = emptyenv())
  set_id(tensor)
  tensor$data <- data
  tensor$shape <- as.double(shape)
  tensor$shared <- FALSE
  tensor$requires_grad <- requires_grad
  tensor$grad <- NULL
  tensor$node <- node
  class(tensor) <- "convt3d_tensor"
  tensor
}

set_id <- function(tensor) {
  state$last_id <- state$last_id + 1
  assign("id", state$last_id, envir = tensor)
  assign("session", state$session, envir = tensor)
}

# Fields as they are, since `$` below is the user's door.
field <- function(tensor, name) .subset2(tensor, name)

# The data of a tensor for somebody who keeps them.
share <- function(tensor) {
  assign("shared", TRUE, envir = tensor)
  field(tensor, "data")
}

# A tensor of the same values whatever is written into this one later.
snapshot <- function(x) {
  if (!is_tensor(x)) return(x)
  copy <- new_tensor(share(x), field(x, "shape"))
  assign("shared", TRUE, envir = copy)
  copy
}

is_tensor <- function(x) inherits(x, "convt3d_tensor")
dtype_name <- function(tensor) if (is.raw(field(tensor, "data"))) "float32" else "float64"
element_count <- function(tensor) prod(field(tensor, "shape"))

# What the C side reads: data, sizes in the order N, C, D, H, W, and whether the
# first of them is the fastest in memory.
view_of <- function(tensor) list(field(tensor, "data"), field(tensor, "shape"), FALSE)
convert <- function(view, dtype, column_major) .Call(C_convert, view, dtype, column_major)
as_dtype <- function(tensor, dtype) {
  if (dtype_name(tensor) == dtype) return(field(tensor, "data"))
  convert(view_of(tensor), dtype, FALSE)
}

#' Tensors
#'
#' A tensor holds float32 numbers (or float64), half the memory of R's arrays and
#' the type that networks are trained in. The functions have the names of the
#' package torch and do what they do there, as far as this layer needs them.
#'
#' A tensor `x` has `x$shape` (also `dim(x)`), `x$dtype`, `x$requires_grad`,
#' `x$grad`, `x$is_leaf`, and the methods `x$numel()`, `x$dim()`, `x$size(dim)`,
#' `x$item()` (of one element), `x$to(dtype)`, `x$detach()`, `x$clone()`,
#' `x$copy_(source)`, `x$zero_()`, `x$requires_grad_(TRUE)`, `x$sum()`, `x$mean()`
#' and `x$backward()` (see [autograd]). `as_array(x)` gives an R array of doubles
#' with the same dimensions: `as_array(x)[2, 1, 3]` is the element that PyTorch
#' counts from zero as `x[1, 0, 2]`. A tensor is a reference: `y <- x` is the same
#' tensor, and `x$zero_()` changes both. `x$detach()` and `m$state_dict()` hold the
#' values as they are then: later writes into `x` don't reach them, nor theirs `x`. Tensors
#' can be saved with [saveRDS()].
#'
#' `torch_randn()` draws from the generator that [torch_manual_seed()] starts.
#'
#' @param data a number, vector or array (its dimensions become the shape, five at
#'   most), or a tensor to copy.
#' @param dtype `torch_float()` (the default, 32 bits) or `torch_double()`.
#' @param requires_grad (bool): whether `backward()` shall compute its gradient.
#' @param ... the sizes, one by one, or one vector of them.
#' @param x a tensor.
#' @return A tensor; `as_array()`: an array, or a vector for up to one axis.
#' @examples
#' x <- torch_tensor(array(1:24, c(2, 3, 4)))
#' x
#' x$shape
#' as_array(x + 1)[2, 3, 4]
#' @export
torch_tensor <- function(data, dtype = NULL, requires_grad = FALSE) {
  if (is_tensor(data)) {
    name <- dtype_of(dtype, dtype_name(data))
    copy <- convert(view_of(data), name, FALSE)
    return(new_tensor(copy, field(data, "shape"), flag(requires_grad, "requires_grad")))
  }
  new_tensor(convert(array_view(data, "data", "torch"), dtype_of(dtype, "float32"), FALSE),
             array_shape(data), flag(requires_grad, "requires_grad"))
}

# As stored, whatever a class's dim() says.
array_shape <- function(x) if (is.null(attr(x, "dim"))) length(unclass(x)) else attr(x, "dim")

# An R array as a view: 'torch' has the axes in the order N, C, D, H, W, 'native' in
# the reverse, which is the order of a tensor's memory.
array_view <- function(x, name, layout) {
  if ((!is.numeric(x) && !is.logical(x)) || inherits(x, "integer64")) {
    refuse(name, " is ", show_value(x), ", but must be a numeric array or a tensor")
  }
  shape <- as.double(array_shape(x))
  if (!is.double(x)) storage.mode(x) <- "double"
  if (layout == "native") list(x, rev(shape), FALSE) else list(x, shape, TRUE)
}

#' @rdname torch_tensor
#' @export
torch_zeros <- function(..., dtype = NULL, requires_grad = FALSE) {
  constant(list(...), 0, dtype, requires_grad)
}

#' @rdname torch_tensor
#' @export
torch_ones <- function(..., dtype = NULL, requires_grad = FALSE) {
  constant(list(...), 1, dtype, requires_grad)
}

#' @rdname torch_tensor
#' @export
torch_randn <- function(..., dtype = NULL, requires_grad = FALSE) {
  shape <- sizes_of(list(...))
  data <- .Call(C_normal, dtype_of(dtype, "float32"), prod(shape))
  new_tensor(data, shape, flag(requires_grad, "requires_grad"))
}

constant <- function(sizes, value, dtype, requires_grad) {
  shape <- sizes_of(sizes)
  data <- convert(list(rep(value, prod(shape)), shape, FALSE), dtype_of(dtype, "float32"), FALSE)
  new_tensor(data, shape, flag(requires_grad, "requires_grad"))
}

sizes_of <- function(sizes) {
  sizes <- unlist(lapply(sizes, whole, "size", 0, 0:5))
  sizes <- whole(if (is.null(sizes)) double() else sizes, "size", 0, 0:5)
  if (prod(sizes) > 2^49) refuse("the sizes ", show_shape(sizes), " make too many elements")
  sizes
}

#' @rdname torch_tensor
#' @export
as_array <- function(x) {
  if (!is_tensor(x)) return(as.array(x))
  convert(view_of(x), "float64", TRUE)
}

#' @export
as.array.convt3d_tensor <- function(x, ...) as_array(x)
#' @export
as.double.convt3d_tensor <- function(x, ...) as.double(as_array(x))
#' @export
dim.convt3d_tensor <- function(x) as.integer(field(x, "shape"))
#' @export
length.convt3d_tensor <- function(x) element_count(x)

# ---- Data types ------------------------------------------------------------------

#' @rdname torch_tensor
#' @export
torch_float <- function() structure(list(name = "float32"), class = "convt3d_dtype")
#' @rdname torch_tensor
#' @export
torch_float32 <- torch_float
#' @rdname torch_tensor
#' @export
torch_double <- function() structure(list(name = "float64"), class = "convt3d_dtype")
#' @rdname torch_tensor
#' @export
torch_float64 <- torch_double

type_names <- c(float32 = "Float", float64 = "Double")

#' @export
print.convt3d_dtype <- function(x, ...) {
  cat("torch_", type_names[[x$name]], "\n", sep = "")
  invisible(x)
}

#' @export
format.convt3d_dtype <- function(x, ...) paste0("torch_", type_names[[x$name]])

dtype_of <- function(dtype, default) {
  if (is.null(dtype)) return(default)
  if (inherits(dtype, "convt3d_dtype")) return(dtype$name)
  refuse("dtype is ", show_value(dtype), ", but must be torch_float() or torch_double()")
}

# ---- Properties and methods --------------------------------------------------------

tensor_properties <- list(
  shape = function(x) dim(x),
  dtype = function(x) if (dtype_name(x) == "float32") torch_float() else torch_double(),
  requires_grad = function(x) field(x, "requires_grad"),
  grad = function(x) field(x, "grad"),
  is_leaf = function(x) is.null(field(x, "node"))
)

tensor_methods <- list(
  numel = function(x) element_count(x),
  dim = function(x) length(field(x, "shape")),
  size = function(x, dim = NULL) {
    if (is.null(dim)) return(dim(x))
    axis <- whole(dim, "dim")
    axes <- length(field(x, "shape"))
    if (axis > axes) {
      refuse("dim is ", axis, ", but the tensor's axes are numbered from 1 to ", axes)
    }
    dim(x)[[axis]]
  },
  item = function(x) {
    if (element_count(x) != 1) refuse("item() needs one element, but there are ", element_count(x))
    as.double(x)
  },
  to = function(x, dtype) {
    name <- dtype_of(dtype, dtype_name(x))
    if (name == dtype_name(x)) x else cast(x, name)
  },
  detach = function(x) snapshot(x),
  clone = function(x) x * 1,
  copy_ = function(x, source) set_data(x, source),
  zero_ = function(x) set_data(x, torch_zeros(field(x, "shape"))),
  requires_grad_ = function(x, requires_grad = TRUE) {
    if (!is.null(field(x, "node"))) refuse("requires_grad can be changed for leaf tensors only")
    assign("requires_grad", flag(requires_grad, "requires_grad"), envir = x)
    invisible(x)
  },
  sum = function(x) torch_sum(x),
  mean = function(x) torch_mean(x),
  backward = function(x, gradient = NULL) run_backward(x, gradient)
)

# Puts another tensor's values, or an array's, into a tensor of the same shape.
set_data <- function(x, source, name = "source") {
  if (!is_tensor(source)) {
    view <- array_view(source, name, "torch")
    source <- new_tensor(convert(view, "float64", FALSE), view[[2]])
  }
  same_shape(name, field(source, "shape"), field(x, "shape"))
  if (!is.null(field(x, "node"))) {
    refuse("a tensor that was computed with gradients can't be written to; $detach() can")
  }
  same <- dtype_name(source) == dtype_name(x)
  assign("data", if (same) share(source) else as_dtype(source, dtype_name(x)), envir = x)
  assign("shared", same, envir = x)
  invisible(x)
}

same_shape <- function(name, shape, wanted) {
  if (length(shape) != length(wanted) || any(shape != wanted)) {
    refuse(name, " has shape ", show_shape(shape), ", but must have ", show_shape(wanted))
  }
}

show_sizes <- function(shape, between = ", ") {
  paste(vapply(shape, format, "", scientific = FALSE, digits = 15), collapse = between)
}
show_shape <- function(shape) paste0("(", show_sizes(shape), ")")

#' @export
`$.convt3d_tensor` <- function(x, name) {
  if (!is.null(property <- tensor_properties[[name]])) return(property(x))
  if (!is.null(method <- tensor_methods[[name]])) return(function(...) method(x, ...))
  refuse("a tensor has no '", name, "'")
}

#' @export
`$<-.convt3d_tensor` <- function(x, name, value) {
  if (name != "grad") refuse("'", name, "' of a tensor can't be assigned to")
  if (!is.null(value)) {
    if (!is_tensor(value)) refuse("grad is ", show_value(value), ", but must be a tensor or NULL")
    same_shape("grad", field(value, "shape"), field(x, "shape"))
  }
  assign("grad", value, envir = x)
  x
}

#' @export
`[[.convt3d_tensor` <- function(x, i) {
  if (!is.character(i) || length(i) != 1) refuse_index()
  do.call("$", list(x, i))
}

#' @export
`[[<-.convt3d_tensor` <- function(x, i, value) {
  if (!is.character(i) || length(i) != 1) refuse_index()
  do.call("$<-", list(x, i, value))
}

#' @export
`[.convt3d_tensor` <- function(x, ...) refuse_index()
#' @export
`[<-.convt3d_tensor` <- function(x, ..., value) refuse_index()

refuse_index <- function() refuse("a tensor has no indices; as_array() of it has")

#' @method all.equal convt3d_tensor
#' @export
all.equal.convt3d_tensor <- function(target, current, ...) {
  if (!is_tensor(current)) return("current is no tensor")
  all.equal(as_array(target), as_array(current), ...)
}

#' @importFrom utils .DollarNames
#' @export
.DollarNames.convt3d_tensor <- function(x, pattern = "") {
  grep(pattern, c(names(tensor_properties), paste0(names(tensor_methods), "(")), value = TRUE)
}

# ---- Printing ------------------------------------------------------------------------

#' @export
format.convt3d_tensor <- function(x, ...) {
  paste0("[ CPU", type_names[[dtype_name(x)]], "Type{",
         show_sizes(field(x, "shape"), ","), "} ]",
         if (!is.null(field(x, "node"))) paste0("[ grad_fn = <", field(x, "node")$name, "> ]")
         else if (field(x, "requires_grad")) "[ requires_grad = TRUE ]")
}

#' @export
str.convt3d_tensor <- function(object, ...) cat(" convt3d_tensor", format(object), "\n")

# Rows are the last axis; a table of rows stands under the indices of the axes
# before the last two.  Vectors have one number a line.
tensor_lines <- function(x, n) {
  shape <- field(x, "shape")
  if (element_count(x) == 0) return(character())
  columns <- if (length(shape) > 1) shape[length(shape)] else 1
  shown <- min(element_count(x) / columns, n)
  text <- matrix(format_values(first_values(x, shown * columns)), shown, columns, byrow = TRUE)
  if (length(shape) < 3) return(table_lines(text))
  height <- shape[length(shape) - 1]
  starts <- seq(1, shown, by = height)
  unlist(lapply(starts, function(start) {
    rows <- start:min(start + height - 1, shown)
    c(table_head((start - 1) / height, shape), table_lines(text[rows, , drop = FALSE]))
  }))
}

# As many columns at a time as the screen has room for.
table_lines <- function(text) {
  room <- max(1, (getOption("width") - 1) %/% (nchar(text[1]) + 2))
  firsts <- seq(1, ncol(text), by = room)
  unlist(lapply(firsts, function(first) {
    last <- min(first + room - 1, ncol(text))
    lines <- apply(text[, first:last, drop = FALSE], 1, paste, collapse = "  ")
    c(if (length(firsts) > 1) paste("Columns", first, "to", last), paste0(" ", lines))
  }))
}

# Four decimals where they show something, else R's own choice.
format_values <- function(values) {
  size <- range(0, abs(values[is.finite(values)]))[2]
  if (all(values == floor(values), na.rm = TRUE) && size < 1e9) return(format(values, nsmall = 0))
  if (size >= 1e-2 && size < 1e5) {
    text <- formatC(values, digits = 4, format = "f")
    return(formatC(text, width = max(nchar(text))))
  }
  format(values, digits = 5)
}

# "(2,1,.,.) = ": the indices of the table of that number, from zero.
table_head <- function(table, shape) {
  outer <- shape[seq_len(length(shape) - 2)]
  index <- table %/% rev(cumprod(c(1, rev(outer))))[-1] %% outer + 1
  paste0("(", paste(index, collapse = ","), ",.,.) = ")
}

first_values <- function(x, count) {
  data <- field(x, "data")
  size <- if (is.raw(data)) 4 else 1
  convert(list(data[seq_len(count * size)], count, FALSE), "float64", FALSE)
}

#' @export
print.convt3d_tensor <- function(x, n = 30, ...) {
  n <- number(n, "n", -1)
  rows <- if (length(field(x, "shape")) > 1) prod(head_of(field(x, "shape"))) else element_count(x)
  writeLines("torch_tensor")
  writeLines(if (n != 0) tensor_lines(x, if (n < 0) Inf else n) else character())
  if (n >= 0 && rows > n) writeLines("... [the output was truncated (use n=-1 to disable)]")
  writeLines(format(x))
  invisible(x)
}

head_of <- function(x) x[-length(x)]
