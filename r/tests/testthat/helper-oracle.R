# helper-oracle: the layer in plain R, from its formula: every product x*w is sent
# to where o = i*stride - padding + k*dilation lies, tap by tap.
#
# A problem is a list: in_channels, out_channels, groups, input_size, kernel_size,
# stride, dilation, output_padding (three values each), padding (six: before and after
# on each axis), padding_mode, and batch.  Arrays have the axes N, C, D, H, W.

problem <- function(in_channels, out_channels, input_size, kernel_size, stride = 1, padding = 0,
                    output_padding = 0, groups = 1, dilation = 1, padding_mode = "zeros",
                    batch = 1) {
  if (length(padding) < 6) padding <- rep(rep_len(padding, 3), each = 2)
  list(in_channels = in_channels, out_channels = out_channels, groups = groups, batch = batch,
       input_size = rep_len(input_size, 3), kernel_size = rep_len(kernel_size, 3),
       stride = rep_len(stride, 3), dilation = rep_len(dilation, 3), padding = padding,
       output_padding = rep_len(output_padding, 3), padding_mode = padding_mode)
}

oracle_size <- function(p) {
  (p$input_size - 1) * p$stride - p$padding[c(1, 3, 5)] - p$padding[c(2, 4, 6)] +
    p$dilation * (p$kernel_size - 1) + p$output_padding + 1
}

input_shape <- function(p) c(p$batch, p$in_channels, p$input_size)
weight_shape <- function(p) c(p$in_channels, p$out_channels / p$groups, p$kernel_size)
output_shape <- function(p) c(p$batch, p$out_channels, oracle_size(p))

# Where input i (row) and tap k (column) land on an axis, from 0; NA: cropped.
landing <- function(p, axis) {
  i <- seq_len(p$input_size[axis]) - 1
  k <- seq_len(p$kernel_size[axis]) - 1
  o <- outer(i * p$stride[axis], k * p$dilation[axis], `+`) - p$padding[2 * axis - 1]
  out <- oracle_size(p)[axis]
  low <- o < 0
  high <- o >= out
  o[low] <- switch(p$padding_mode, zeros = NA, reflect = -o[low], replicate = 0,
                   circular = o[low] + out)
  o[high] <- switch(p$padding_mode, zeros = NA, reflect = 2 * (out - 1) - o[high],
                    replicate = out - 1, circular = o[high] - out)
  o
}

# For one tap: the place (from 1) in the output volume of every place in the input's.
landing_places <- function(lands, tap, out) {
  of_axis <- function(axis) lands[[axis]][, tap[axis]]
  as.vector(outer(outer(of_axis(1), of_axis(2) * out[1], `+`), of_axis(3) * out[1] * out[2],
                  `+`)) + 1
}

# Calls each(places, tap, from, to) for every tap and group: the places with an output
# alone, and the group's input and output channels.
over_products <- function(p, each) {
  lands <- lapply(1:3, function(axis) landing(p, axis))
  out <- oracle_size(p)
  taps <- as.matrix(expand.grid(lapply(p$kernel_size, seq_len)))
  from_each <- p$in_channels / p$groups
  to_each <- p$out_channels / p$groups
  for (t in seq_len(nrow(taps))) {
    places <- landing_places(lands, taps[t, ], out)
    for (g in seq_len(p$groups)) {
      each(places, taps[t, ], (g - 1) * from_each + seq_len(from_each),
           (g - 1) * to_each + seq_len(to_each))
    }
  }
}

# One sample as a matrix, channels by places; and back.
volume <- function(x, n) matrix(x[n, , , , ], dim(x)[2])
tap_matrix <- function(w, from, tap) matrix(w[from, , tap[1], tap[2], tap[3]], length(from))

oracle_forward <- function(p, x, w, bias = NULL) {
  y <- array(0, output_shape(p))
  for (n in seq_len(p$batch)) {
    inputs <- volume(x, n)
    sums <- matrix(0, p$out_channels, prod(oracle_size(p)))
    over_products(p, function(places, tap, from, to) {
      real <- which(!is.na(places))
      if (!length(real)) return()
      products <- crossprod(inputs[from, real, drop = FALSE], tap_matrix(w, from, tap))
      met <- rowsum(products, places[real])
      at <- as.integer(rownames(met))
      sums[to, at] <<- sums[to, at] + t(met)
    })
    y[n, , , , ] <- if (is.null(bias)) sums else sums + bias
  }
  y
}

oracle_backward_input <- function(p, dy, w) {
  dx <- array(0, input_shape(p))
  for (n in seq_len(p$batch)) {
    gradients <- volume(dy, n)
    sums <- matrix(0, p$in_channels, prod(p$input_size))
    over_products(p, function(places, tap, from, to) {
      real <- which(!is.na(places))
      if (!length(real)) return()
      sums[from, real] <<- sums[from, real] +
        tap_matrix(w, from, tap) %*% gradients[to, places[real], drop = FALSE]
    })
    dx[n, , , , ] <- sums
  }
  dx
}

oracle_backward_weight <- function(p, x, dy) {
  dw <- array(0, weight_shape(p))
  for (n in seq_len(p$batch)) {
    inputs <- volume(x, n)
    gradients <- volume(dy, n)
    over_products(p, function(places, tap, from, to) {
      real <- which(!is.na(places))
      if (!length(real)) return()
      dw[from, , tap[1], tap[2], tap[3]] <<- tap_matrix(dw, from, tap) +
        tcrossprod(inputs[from, real, drop = FALSE], gradients[to, places[real], drop = FALSE])
    })
  }
  dw
}

oracle_backward_bias <- function(dy) apply(dy, 2, sum)

# All four results, named as in the golden files.
oracle <- function(p, x, w, bias, dy) {
  list(output = oracle_forward(p, x, w, bias), grad_input = oracle_backward_input(p, dy, w),
       grad_weight = oracle_backward_weight(p, x, dy),
       grad_bias = if (!is.null(bias)) oracle_backward_bias(dy))
}

# ---- Random problems ----------------------------------------------------------------

pick <- function(from, count = 1) from[sample.int(length(from), count, replace = TRUE)]

random_problem <- function(mode) {
  groups <- pick(c(1, 1, 2, 3))
  p <- problem(groups * pick(1:3), groups * pick(1:3), pick(1:4, 3), pick(1:4, 3), pick(1:3, 3),
               pick(0:3, 6), 0, groups, pick(1:3, 3), mode, pick(1:2))
  p$output_padding <- vapply(pmax(p$stride, p$dilation), function(most) pick(seq_len(most)) - 1, 0)
  size <- oracle_size(p)
  padding <- pmax(p$padding[c(1, 3, 5)], p$padding[c(2, 4, 6)])
  legal <- all(size >= 1) && switch(mode, reflect = all(padding < size),
                                    circular = all(padding <= size), TRUE)
  if (legal) p else random_problem(mode)
}

whole_numbers <- function(shape, largest = 4) {
  array(as.double(pick(-largest:largest, prod(shape))), shape)
}

# The layer's function on this problem, with whatever stands for its operands.
run_problem <- function(p, input, weight, bias = NULL, ...) {
  nnf_conv_transpose3d(input, weight, bias, p$stride, short_padding(p), p$output_padding, p$groups,
                       p$dilation, p$padding_mode, ...)
}

# Three values where both sides are alike, as most users give it.
short_padding <- function(p) {
  before <- p$padding[c(1, 3, 5)]
  if (all(before == p$padding[c(2, 4, 6)])) before else p$padding
}

module_of <- function(p, bias = TRUE) {
  nn_conv_transpose3d(p$in_channels, p$out_channels, p$kernel_size, p$stride, p$padding,
                      p$output_padding, p$groups, bias, p$dilation, p$padding_mode)
}
