# The layer as a function, and what the module shares with it.

# ---- Operands: a tensor, or an array in one of two layouts --------------------------

# 'input' decides: arrays are computed with in float64, tensors in their own dtype.
input_view <- function(x, name, layout) {
  if (is_tensor(x)) {
    if (layout != "torch") refuse("layout is for arrays; ", name, " is a tensor")
    view <- view_of(x)
  } else {
    view <- array_view(x, name, layout)
  }
  rank <- length(view[[2]])
  if (!rank %in% 4:5) {
    refuse(name, " has ", rank, if (rank == 1) " axis" else " axes", ", but must have 5 ",
           if (layout == "native") "(W, H, D, C, N) or 4 (W, H, D, C)"
           else "(N, C, D, H, W) or 4 (C, D, H, W)",
           if (rank == 3) "; add the axis of channels")
  }
  view
}

layout_of <- function(layout) one_of(layout, "layout", c("torch", "native"))

# A weight or bias to go with an input: whatever it is, as that input's dtype.
parameter_view <- function(parameter, name, input, layout) {
  if (is.null(parameter)) return(NULL)
  if (!is_tensor(parameter)) {
    view <- array_view(parameter, name, layout)
    if (is_tensor(input)) {
      view <- list(convert(view, dtype_name(input), FALSE), view[[2]], FALSE)
    }
    return(view)
  }
  if (!is_tensor(input)) {
    return(list(as_dtype(parameter, "float64"), field(parameter, "shape"), FALSE))
  }
  if (dtype_name(parameter) != dtype_name(input)) {
    refuse("input is of dtype ", dtype_name(input), ", but ", name, " of ",
           dtype_name(parameter), "; bring them to one with $to()")
  }
  view_of(parameter)
}

# Fresh memory for a result of this shape, of the input's kind.
result_view <- function(shape, input, layout) {
  if (is_tensor(input)) {
    return(list(.Call(C_storage, dtype_name(input), shape, FALSE), shape, FALSE))
  }
  native <- layout == "native"
  data <- .Call(C_storage, "float64", if (native) rev(shape) else shape, TRUE)
  list(data, shape, !native)
}

# The caller's own memory for a result of this shape.
out_view <- function(out, shape, input, layout) {
  if (is_tensor(out) != is_tensor(input)) {
    refuse("out must be ", if (is_tensor(input)) "a tensor" else "an array", ", as input is")
  }
  if (!is_tensor(out)) {
    if (!is.double(out)) refuse("out is ", typeof(out), ", but must be an array of doubles")
    view <- array_view(out, "out", layout)
    same_shape("out", view[[2]], shape)
    return(view)
  }
  if (dtype_name(out) != dtype_name(input)) {
    refuse("out is of dtype ", dtype_name(out), ", but must be of ", dtype_name(input))
  }
  same_shape("out", field(out, "shape"), shape)
  if (identical(out, input)) refuse("out is the input itself, but must be another tensor")
  if (state$recording && wants_grad(out) && is.null(field(out, "node"))) {
    refuse("out requires a gradient, but must be a tensor that doesn't")
  }
  # What another tensor or a recorded operation holds too is replaced, not written to.
  if (field(out, "shared")) result_view(shape, input, layout) else view_of(out)
}

# A tensor that was written to forgets how it was made before.
filled_out <- function(out, view) {
  if (!is_tensor(out)) return(out)
  assign("data", view[[1]], envir = out)
  assign("shared", FALSE, envir = out)
  if (!is.null(field(out, "node"))) {
    assign("node", NULL, envir = out)
    assign("requires_grad", FALSE, envir = out)
  }
  out
}

# ---- Forward and its gradients, on views ---------------------------------------------

forward_into <- function(layer, x, weight, bias, y) {
  .Call(C_forward, layer, x, weight, bias, y, thread_count())
}

backward_input_into <- function(layer, dy, weight, dx) {
  .Call(C_backward_input, layer, dy, weight, dx, thread_count())
}

backward_weight_into <- function(layer, x, dy, dw, db) {
  .Call(C_backward_weight, layer, x, dy, dw, db, thread_count())
}

value_of <- function(view, like) {
  if (is_tensor(like)) new_tensor(view[[1]], view[[2]]) else view[[1]]
}

# The layer on anything: checks, computes, and records if 'input' is a tensor.
apply_layer <- function(layer, input, weight, bias, output_size, layout, out) {
  layout <- layout_of(layout)
  x <- input_view(input, "input", layout)
  w <- parameter_view(weight, "weight", input, layout)
  b <- parameter_view(bias, "bias", input, layout)
  shape <- .Call(C_output_shape, layer, x[[2]], wanted_size(output_size, length(x[[2]]), layout))
  if (!is.null(out)) {
    y <- out_view(out, shape, input, layout)
    forward_into(layer, x, w, b, y)
    return(invisible(filled_out(out, y)))
  }
  y <- result_view(shape, input, layout)
  forward_into(layer, x, w, b, y)
  if (!is_tensor(input)) return(y[[1]])
  inputs <- list(input, weight, bias)
  for (kept in inputs[1:2]) if (is_tensor(kept) && records(inputs)) share(kept)
  result_of("conv_transpose3d", inputs, y[[1]], y[[2]],
            function(g, wanted) layer_gradients(layer, inputs, wanted, x, w, view_of(g)))
}

layer_gradients <- function(layer, inputs, wanted, x, w, dy) {
  grads <- vector("list", 3)
  if (wanted[1]) {
    dx <- result_view(x[[2]], inputs[[1]], "torch")
    backward_input_into(layer, dy, w, dx)
    grads[[1]] <- value_of(dx, inputs[[1]])
  }
  if (any(wanted[2:3])) {
    dw <- result_view(w[[2]], inputs[[1]], "torch")
    db <- if (!is.null(inputs[[3]])) result_view(layer$channels[2], inputs[[1]], "torch")
    backward_weight_into(layer, x, dy, dw, db)
    grads[[2]] <- value_of(dw, inputs[[1]])
    if (!is.null(db)) grads[[3]] <- value_of(db, inputs[[1]])
  }
  grads
}

# The commonest of wrong weights gets its own text.
refuse_conv3d_weight <- function(shape, input, groups, layout) {
  axes <- dim(input)
  if (!length(axes) %in% 4:5) return()
  channels <- if (layout == "native") axes[4] else axes[length(axes) - 3]
  if (shape[1] != channels && shape[2] * groups == channels) {
    refuse("weight has size ", shape[1], " on its in_channels axis, but input has ", channels,
           " channels; it looks like a Conv3d weight (out, in, ...): this layer's has its ",
           "in_channels first")
  }
}

#' Transposed 3-D convolution, as a function
#'
#' What [nn_conv_transpose3d()] computes, with the weight and bias given. Arguments
#' are in the order of PyTorch's function.
#'
#' @inheritParams nn_conv_transpose3d
#' @param input a tensor or a numeric array of shape (N, in_channels, D, H, W), or
#'   without N. See "Arrays" in [nn_conv_transpose3d()].
#' @param weight a tensor or an array of shape (in_channels, out_channels/groups, kD,
#'   kH, kW). An array is in the same layout as the input: with `layout = "native"`
#'   its dimensions are c(kW, kH, kD, out_channels/groups, in_channels).
#' @param bias a tensor or a vector of out_channels numbers, or NULL for none.
#' @param output_size (vector, optional): the output's size, c(D, H, W), in the place
#'   of `output_padding`.
#' @param layout (string): the order of an array's dimensions, "torch" or "native".
#' @param out a tensor or an array of the output's shape (and layout) that is
#'   overwritten and returned, in the place of a new one. Every variable that holds
#'   it sees the new values; nothing is recorded for `backward()`.
#' @return A tensor for a tensor, an array of doubles for an array.
#' @examples
#' x <- array(rnorm(2 * 3 * 4 * 4 * 4), c(2, 3, 4, 4, 4))
#' w <- array(rnorm(3 * 5 * 8), c(3, 5, 2, 2, 2))
#' dim(nnf_conv_transpose3d(x, w, stride = 2))
#' @export
nnf_conv_transpose3d <- function(input, weight, bias = NULL, stride = 1, padding = 0,
                                 output_padding = 0, groups = 1, dilation = 1,
                                 padding_mode = "zeros", output_size = NULL, layout = "torch",
                                 out = NULL, precision = "highest") {
  layout <- layout_of(layout)
  is_array <- !is_tensor(weight)
  shape <- if (is_array) array_view(weight, "weight", layout)[[2]] else field(weight, "shape")
  if (length(shape) != 5) {
    refuse("weight has ", length(shape), " axes, but must have 5: in_channels, ",
           "out_channels/groups, kD, kH, kW", if (layout == "native") " in reverse")
  }
  groups <- whole(groups, "groups")
  refuse_conv3d_weight(shape, input, groups, layout)
  layer <- layer_arguments(shape[1], shape[2] * groups, shape[3:5], stride, padding,
                           output_padding, groups, dilation, padding_mode, precision)
  apply_layer(layer, input, weight, bias, output_size, layout, out)
}
