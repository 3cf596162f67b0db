#' Transposed 3-D convolution
#'
#' A layer that spreads every voxel of a volume over a kernel's worth of outputs
#' and adds up what meets: the learned way of making volumes larger. It is the
#' gradient of a 3-D convolution with respect to its input, and goes by the names
#' of fractionally strided convolution and (wrongly, since it undoes nothing)
#' deconvolution.
#'
#' @details
#' With input index i, output index o and tap k, on each axis,
#' \deqn{o = i \times \mbox{stride} - \mbox{padding} + k \times \mbox{dilation}}{
#'   o = i*stride - padding + k*dilation}
#' \deqn{y[n, c, o] = \mbox{bias}[c] + \sum x[n, b, i] \, w[b, c, k]}{
#'   y[n, c, o] = bias[c] + sum of x[n, b, i] w[b, c, k]}
#' over the input channels b of c's group and all i and k that reach o.
#'
#' * `stride` is the distance between the places of two neighbouring inputs in the
#'   output: the factor by which the volume grows.
#' * `padding` is taken away: that many outputs on either side are cut off. In terms
#'   of the convolution whose gradient this is, `dilation * (kernel_size - 1) -
#'   padding` zeros would be put around the (stretched) input.
#' * `output_padding` adds outputs on the far side only. Several input sizes of a
#'   strided convolution give the same output size; this tells which one to go back
#'   to. The added voxels are computed as all others are, and must be fewer than
#'   `max(stride, dilation)`.
#' * `dilation` is the distance between the kernel's taps (the "a trous" way).
#' * `groups` cuts the channels into that many parts that don't see each other: with
#'   1 every output sees every input; with 2 there are two layers side by side, each
#'   with half of the inputs and half of the outputs; with `groups = in_channels`
#'   every input channel has `out_channels / in_channels` filters of its own.
#'   `groups` must divide both numbers of channels.
#' * `padding_mode` says what becomes of the outputs that `padding` cuts off: "zeros"
#'   drops them; the others, being the gradient of a convolution whose input was
#'   padded in that way, add them back: "reflect" mirrored (without the edge),
#'   "replicate" all onto the edge, "circular" at the opposite side. PyTorch has
#'   "zeros" only.
#'
#' `kernel_size`, `stride`, `padding`, `output_padding` and `dilation` are one number
#' for all axes, or three for depth, height and width. `padding` may also be six:
#' before and after in depth, height and width.
#'
#' @section Shape:
#' Input \eqn{(N, C_{in}, D_{in}, H_{in}, W_{in})}{(N, C_in, D_in, H_in, W_in)} or,
#' for one sample, without N. Output
#' \eqn{(N, C_{out}, D_{out}, H_{out}, W_{out})}{(N, C_out, D_out, H_out, W_out)} with
#' \deqn{D_{out} = (D_{in} - 1) \times \mbox{stride}[1] - 2 \times \mbox{padding}[1] +
#'   \mbox{dilation}[1] \times (\mbox{kernel\_size}[1] - 1) +
#'   \mbox{output\_padding}[1] + 1}{
#'   D_out = (D_in - 1)*stride[1] - 2*padding[1] + dilation[1]*(kernel_size[1] - 1) +
#'   output_padding[1] + 1}
#' and likewise \eqn{H_{out}}{H_out} with the second values and
#' \eqn{W_{out}}{W_out} with the third.
#'
#' `m(input, output_size = c(D, H, W))` asks for a size instead: any from the formula's
#' at `output_padding = 0` up to `max(stride, dilation) - 1` more. As in PyTorch the
#' whole shape of the output will do too; with `layout = "native"` only the three sizes,
#' in the order c(D, H, W). N may be 0.
#'
#' @section Attributes:
#' * `m$weight`, a tensor of shape (in_channels, out_channels/groups, kernel_size\[1\],
#'   kernel_size\[2\], kernel_size\[3\]), and `m$bias` of shape (out_channels), or NULL
#'   with `bias = FALSE`. Both start uniform on \eqn{(-\sqrt{k}, \sqrt{k})}{(-sqrt(k),
#'   sqrt(k))}, \eqn{k = \mbox{groups} / (C_{out} \prod_i
#'   \mbox{kernel\_size}[i])}{k = groups / (C_out * prod(kernel_size))}, and after
#'   [torch_manual_seed()] with the very values of PyTorch. `m$weight <- value` writes
#'   new ones.
#' * `m$parameters`, `m$state_dict()`, `m$load_state_dict(list)`: by name, tensors or
#'   arrays. [safetensors_save()] writes them for Python.
#' * `m$weight$grad`, `m$bias$grad`: NULL until a backward call; `m$zero_grad()` makes
#'   them NULL again.
#' * `m$backward(input, grad_output, layout = "torch")` adds to those whose
#'   `requires_grad` is TRUE, and returns the gradient of the input. With tensors,
#'   `m(input)$backward(grad_output)` does so too, see [autograd].
#' * `m$train()`, `m$eval()` and `m$training`: kept for code that calls them; the layer
#'   is the same in both. `m$to(torch_double())` changes the type of the parameters.
#' * `m$in_channels` and so on: the arguments.
#'
#' @section Arrays:
#' `m(input, layout = "torch")` takes a tensor, or a plain array of doubles with
#' dimensions c(N, C, D, H, W) or c(C, D, H, W), and returns the same kind. Arrays
#' are computed with in double precision, and read and written in place: there is no
#' permuted copy. `layout = "native"` is for arrays with the axes the other way round,
#' c(W, H, D, C, N) or c(W, H, D, C): the order of a tensor's memory and of a NIfTI
#' image's; it is the fastest for arrays. `m(input, out = y)` overwrites y, a tensor
#' or array of the output's shape, and returns it; every variable that holds it sees
#' the new values.
#'
#' @param in_channels (int): number of channels of the input.
#' @param out_channels (int): number of channels of the output.
#' @param kernel_size (int or three): size of the kernel.
#' @param stride (int or three): distance of neighbouring inputs in the output.
#' @param padding (int, three or six): outputs that are cut off on both sides of each
#'   axis.
#' @param output_padding (int or three): outputs that are added at the far side of each
#'   axis.
#' @param groups (int): number of parts of the channels that don't see each other.
#' @param bias (bool): whether each output channel has a number added.
#' @param dilation (int or three): distance between taps of the kernel.
#' @param padding_mode (string): "zeros", "reflect", "replicate" or "circular".
#' @param precision (string): how exactly float32 tensors are multiplied, "highest", "high"
#'   or "medium". On CPUs with AMX "high" and "medium" are faster, with factors that are off
#'   by up to 2^-16 and 2^-8 of themselves; elsewhere, and for arrays, which are float64, all
#'   three are the same.
#' @return A module `m`, a function with the attributes below.
#' @references Dumoulin and Visin (2016), A guide to convolution arithmetic for deep
#'   learning, arXiv:1603.07285, has pictures of all of this.
#' @seealso [nnf_conv_transpose3d()], [plot.nn_conv_transpose3d()], [nn_init_trilinear_()]
#' @examples
#' if (torch_is_installed()) {
#' # With square kernels and equal stride
#' m <- nn_conv_transpose3d(16, 33, 3, stride = 2)
#' # non-square kernels and unequal stride and with padding
#' m <- nn_conv_transpose3d(16, 33, c(3, 5, 2), stride = c(2, 1, 1), padding = c(0, 4, 2))
#' m
#' \donttest{
#' input <- torch_randn(20, 16, 10, 50, 100)
#' output <- m(input)
#' dim(output)
#' }
#' }
#' # an array, in the order of a NIfTI image: c(W, H, D, C)
#' volume <- array(rnorm(16 * 12 * 10), c(16, 12, 10, 1))
#' up <- nn_init_trilinear_(nn_conv_transpose3d(1, 1, 4, stride = 2, padding = 1))
#' dim(up(volume, layout = "native"))
#' @useDynLib convt3d, .registration = TRUE
#' @export
nn_conv_transpose3d <- function(in_channels, out_channels, kernel_size, stride = 1, padding = 0,
                                output_padding = 0, groups = 1, bias = TRUE, dilation = 1,
                                padding_mode = "zeros", precision = "highest") {
  layer <- layer_arguments(in_channels, out_channels, kernel_size, stride, padding, output_padding,
                           groups, dilation, padding_mode, precision)
  bias <- flag(bias, "bias")
  parameters <- start_parameters(layer, bias)
  whole_names <- c("kernel_size", "stride", "output_padding", "dilation")
  whole_fields <- lapply(layer[whole_names], as.integer)
  forward <- layer_forward(layer, parameters$weight, parameters$bias)
  new_module("nn_conv_transpose3d", forward, c(whole_fields, list(
    in_channels = as.integer(layer$channels[1]), out_channels = as.integer(layer$channels[2]),
    groups = as.integer(layer$channels[3]), padding = shown_padding(layer$padding),
    padding_mode = layer$padding_mode, precision = layer$precision, layer = layer,
    weight = parameters$weight, bias = parameters$bias, methods = list(backward = backward_of_layer)
  )))
}

# Both apart from nn_conv_transpose3d(), whose variables would live as long as the module,
# the initial values among them.
start_parameters <- function(layer, bias) {
  start <- .Call(C_fill, layer, "float32", bias, "default")
  list(weight = new_tensor(start[[1]], weight_shape(layer), TRUE),
       bias = if (bias) new_tensor(start[[2]], layer$channels[2], TRUE))
}

layer_forward <- function(layer, weight, bias) {
  list(layer, weight, bias) # evaluated now: else the caller's variables stay, too
  function(input, output_size = NULL, layout = "torch", out = NULL) {
    apply_layer(layer, input, weight, bias, output_size, layout, out)
  }
}

weight_shape <- function(layer) {
  c(layer$channels[1], layer$channels[2] / layer$channels[3], layer$kernel_size)
}

# Three values where both sides of each axis are alike.
shown_padding <- function(padding) {
  before <- padding[c(1, 3, 5)]
  as.integer(if (all(before == padding[c(2, 4, 6)])) before else padding)
}

# The gradients by hand: adds to weight$grad and bias$grad where they are wanted, returns
# that of the input.
backward_of_layer <- function(self, input, grad_output, layout = "torch") {
  layout <- layout_of(layout)
  state <- self_of(self)
  x <- input_view(input, "input", layout)
  dy <- input_view(grad_output, "grad_output", layout)
  if (is_tensor(grad_output) != is_tensor(input)) {
    refuse("grad_output must be ", if (is_tensor(input)) "a tensor" else "an array",
           ", as input is")
  }
  if (length(dy[[2]]) != length(x[[2]])) {
    refuse("grad_output has ", length(dy[[2]]), " axes, but must have ", length(x[[2]]),
           ", as input has")
  }
  weight <- parameter_view(state$weight, "weight", input, layout)
  dx <- result_view(x[[2]], input, layout)
  backward_input_into(state$layer, dy, weight, dx)
  if (wants_grad(state$weight) || wants_grad(state$bias)) add_gradients(state, x, dy, input)
  value_of(dx, input)
}

add_gradients <- function(state, x, dy, input) {
  dw <- result_view(weight_shape(state$layer), torch_like(input), "torch")
  db <- if (!is.null(state$bias)) result_view(state$layer$channels[2], torch_like(input), "torch")
  backward_weight_into(state$layer, x, dy, dw, db)
  if (wants_grad(state$weight)) add_gradient(state$weight, dw)
  if (wants_grad(state$bias)) add_gradient(state$bias, db)
}

# A tensor of the dtype that an input is computed in.
torch_like <- function(input) if (is_tensor(input)) input else new_tensor(double(), 0)

add_gradient <- function(parameter, view) {
  gradient <- new_tensor(view[[1]], view[[2]])
  add_to_grad(parameter, new_tensor(as_dtype(gradient, dtype_name(parameter)), view[[2]]))
}

#' @export
format.nn_conv_transpose3d <- function(x, ...) {
  self <- self_of(x)
  defaults <- list(stride = 1, padding = 0, output_padding = 0, groups = 1, dilation = 1,
                   padding_mode = "zeros", precision = "highest")
  shown <- function(value) {
    if (is.character(value)) return(encodeString(value, quote = "\""))
    if (all(value == value[1])) value[1] else paste0("c(", paste(value, collapse = ", "), ")")
  }
  given <- Filter(function(name) !all(self[[name]] == defaults[[name]]), names(defaults))
  arguments <- c(self$in_channels, self$out_channels,
                 paste("kernel_size =", shown(self$kernel_size)),
                 vapply(given, function(name) paste(name, "=", shown(self[[name]])), ""),
                 if (is.null(self$bias)) "bias = FALSE")
  paste0("nn_conv_transpose3d(", paste(arguments, collapse = ", "), ")")
}

# ---- Initial values -------------------------------------------------------------------

#' Other initial values
#'
#' `nn_init_trilinear_()` makes a layer enlarge each channel by linear
#' interpolation with half-pixel centres: stride s, kernel_size `2*s - s %% 2`,
#' padding `s %/% 2`, groups = in_channels = out_channels. With `padding_mode =
#' "replicate"` it is exact up to the border for strides 2 and 3. `nn_init_icnr_()`
#' starts a layer with kernel_size = stride without checkerboards: as nearest
#' neighbour enlargement by random numbers. `nn_init_default_()` draws the default's
#' values anew.
#'
#' @param module a [nn_conv_transpose3d()], changed in place.
#' @return The module, invisibly.
#' @references Aitken et al. (2017), Checkerboard artifact free sub-pixel convolution,
#'   arXiv:1707.02937 (ICNR).
#' @examples
#' m <- nn_init_trilinear_(nn_conv_transpose3d(1, 1, 4, stride = 2, padding = 1))
#' round(as_array(m$weight)[1, 1, 1, , ], 4)
#' @export
nn_init_trilinear_ <- function(module) refill(module, "trilinear")
#' @rdname nn_init_trilinear_
#' @export
nn_init_icnr_ <- function(module) refill(module, "icnr")
#' @rdname nn_init_trilinear_
#' @export
nn_init_default_ <- function(module) refill(module, "default")

refill <- function(module, fill) {
  if (!inherits(module, "nn_conv_transpose3d")) {
    refuse("module is ", show_value(module), ", but must be a nn_conv_transpose3d()")
  }
  self <- self_of(module)
  start <- .Call(C_fill, self$layer, dtype_name(self$weight), !is.null(self$bias), fill)
  assign("data", start[[1]], envir = self$weight)
  if (!is.null(self$bias)) assign("data", start[[2]], envir = self$bias)
  invisible(module)
}

#' Random numbers
#'
#' Starts the generator anew, with PyTorch's meaning: after `torch_manual_seed(s)`
#' layers get the very initial values, bit for bit, that PyTorch gives them after
#' `torch.manual_seed(s)`, layer after layer. [torch_randn()] draws from the same
#' stream and takes as many draws as PyTorch's; its values equal PyTorch's but for
#' the rounding of the last digits (logarithms and cosines differ between
#' libraries). R's own [set.seed()] has no part in it. Without a call the stream
#' starts anywhere.
#'
#' The children of [parallel::mclapply()] go on with copies of the stream, and so draw
#' the same numbers, unless each calls `torch_manual_seed()` with a seed of its own.
#'
#' @param seed (int): a whole number; as in PyTorch the lower 32 bits count.
#' @return NULL, invisibly.
#' @references Matsumoto and Nishimura (1998), Mersenne Twister (MT19937).
#' @examples
#' torch_manual_seed(42)
#' nn_conv_transpose3d(1, 1, 2)$weight
#' @export
torch_manual_seed <- function(seed) {
  if (!is.numeric(seed) || is.object(seed) || length(seed) != 1 || is.na(seed) ||
        seed != floor(seed) || abs(seed) > 2^53) {
    refuse("seed is ", show_value(seed), ", but must be a whole number from -2^53 to 2^53")
  }
  .Call(C_seed, as.double(seed))
  invisible(NULL)
}

#' Whether the layer can be used
#'
#' For code that was written for the package torch, which has to download a library
#' first. Here nothing is missing.
#'
#' @return TRUE.
#' @examples
#' torch_is_installed()
#' @export
torch_is_installed <- function() TRUE
