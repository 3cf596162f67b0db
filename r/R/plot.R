# plot: what a layer does, drawn and counted.
#
# Everything here is found by running the layer itself, one axis at a time, with
# weights of one: overlaps and footprints of three axes are products of those of one.

#' Draws what a layer does
#'
#' Two maps of the layer, and slices of what it makes of an input.
#'
#' * The footprint: which outputs one input voxel reaches (dark, with the number of
#'   its taps that do where there are several, as `padding_mode` may add them).
#' * The overlaps: how many taps meet in each output voxel, for a small input. Where
#'   the numbers differ away from the border, the layer tends to draw checkerboards,
#'   and the title says so: "overlaps uneven: 1 to 8 taps" are the smallest and the
#'   largest number there. They are even if stride divides kernel_size (for
#'   dilation 1). Near the border there are fewer in any case.
#' * With an input: its middle slices and those of the output (first sample, first
#'   channel), each in shades from its smallest to its largest value.
#'
#' The maps show height and width, or depth and width if only depth is uneven. A map
#' of more than 200 outputs along an axis is drawn in cells of several, each with the
#' largest number in it; the line above the map says how many. With
#' `layout = "native"` slices have their first voxel at the bottom left, as radiology
#' has it; else at the top left, as pictures do.
#'
#' @param x a [nn_conv_transpose3d()].
#' @param input (tensor or array, optional): what to draw slices of, as for `x(input)`.
#' @param layout (string): the order of an array's dimensions, "torch" or "native".
#' @param ... graphical parameters for the whole picture, such as `cex` or `family`;
#'   see [graphics::par()]. The former ones are put back.
#' @return x, invisibly.
#' @references Odena, Dumoulin and Olah (2016), Deconvolution and checkerboard
#'   artifacts, Distill, \doi{10.23915/distill.00003}.
#' @examples
#' plot(nn_conv_transpose3d(1, 1, 3, stride = 2))
#' up <- nn_conv_transpose3d(1, 1, 4, stride = 2, padding = 1, padding_mode = "replicate")
#' nn_init_trilinear_(up)
#' plot(up, array(brain, c(dim(brain), 1)), layout = "native")
#' @importFrom graphics axis image layout mtext par plot.new plot.window rect strwidth text
#' @importFrom grDevices grey hcl.colors
#' @export
plot.nn_conv_transpose3d <- function(x, input = NULL, layout = "torch", ...) {
  layout <- layout_of(layout)
  maps <- layer_maps(self_of(x)$layer) # before anything is drawn, in case it is refused
  slices <- if (!is.null(input)) {
    output <- with_no_grad(x(input, layout = layout))
    list(Input = volume_of(input, layout), Output = volume_of(output, layout))
  }
  before <- par(no.readonly = TRUE)
  on.exit(par(before))
  arrange(!is.null(slices))
  par(mar = rep(0, 4), xpd = NA)
  par(...)
  cell <- if (maps$each > 1) paste(times(rep(maps$each, 2)), "outputs")
  draw_map(maps, "footprint", "Footprint",
           paste0("one input reaches ", times(maps$reach), if (length(cell)) ", a cell is ", cell))
  draw_map(maps, "overlap", overlap_title(maps$taps),
           paste0(if (length(cell)) "most taps in " else "taps per output", cell, ", ", maps$where))
  for (name in names(slices)) draw_slices(slices[[name]], name, layout == "native")
  invisible(x)
}

# Two maps side by side; with slices, the maps on their left in a wide picture, above
# them in another. Letters shrink with the panels.
arrange <- function(slices) {
  din <- par("din")
  wide <- din[1] > 1.4 * din[2]
  grid <- if (!slices) t(1:2)
  else if (wide) rbind(c(1, 3:5), c(2, 6:8))
  else rbind(rep(1:2, each = 3), rep(3:5, each = 2), rep(6:8, each = 2))
  graphics::layout(grid)
  columns <- if (!slices) 2 else if (wide) 4 else 3
  par(cex = max(0.4, min(0.9, 0.34 * din[1] / columns, 0.31 * din[2] / nrow(grid))))
}

times <- function(sizes) paste(in_full(sizes), collapse = " x ")

overlap_title <- function(taps) {
  range <- apply(taps, 2, prod)
  if (range[1] == range[2]) return("Overlaps even")
  paste("Overlaps uneven:", in_full(range[1]), "to", in_full(range[2]), "taps")
}

# ---- Counting -------------------------------------------------------------------------

# The layer on one axis alone, all weights one.
along <- function(layer, a, input) {
  alone <- function(values, other) replace(rep(other, 3), a, values[a])
  sides <- c(2 * a - 1, 2 * a)
  one <- list(
    channels = c(1, 1, 1), kernel_size = alone(layer$kernel_size, 1),
    stride = alone(layer$stride, 1), padding = replace(rep(0, 6), sides, layer$padding[sides]),
    output_padding = alone(layer$output_padding, 0), dilation = alone(layer$dilation, 1),
    padding_mode = layer$padding_mode, precision = layer$precision
  )
  input <- array(as.double(input), c(1, 1, replace(rep(1, 3), a, length(input))))
  weight <- array(1, c(1, 1, one$kernel_size))
  as.vector(apply_layer(one, input, weight, NULL, NULL, "torch", NULL))
}

# Refuses what would take gigabytes to count, before anything of that size is made.
check_countable <- function(layer, size) {
  outputs <- (size - 1) * layer$stride + layer$dilation * (layer$kernel_size - 1) + 1
  wide <- which(pmax(size, outputs) > countable)
  if (length(wide)) {
    a <- wide[1]
    refuse("stride ", in_full(layer$stride[a]), " and dilation ", in_full(layer$dilation[a]),
           " on the ", axes[a], " axis spread ", in_full(size[a]), " inputs over ",
           in_full(outputs[a]), " outputs, but at most ", in_full(countable), " are counted")
  }
}

countable <- 1e7

# Fewest and most taps that meet in an output away from the border, axis by axis: tap
# k lands on the outputs whose remainder is that of k*dilation. These remainders come
# round after 'phases' taps; others are never met if there are fewer than stride.
inner_taps <- function(layer) {
  phases <- layer$stride / mapply(common_divisor, layer$stride, layer$dilation)
  taps <- cbind(min = ifelse(phases < layer$stride, 0, floor(layer$kernel_size / phases)),
                max = ceiling(layer$kernel_size / phases))
  rownames(taps) <- axes
  taps
}

common_divisor <- function(a, b) if (b == 0) a else common_divisor(b, a %% b)

# An input just large enough to have an inside.
small_size <- function(layer) {
  extent <- layer$dilation * (layer$kernel_size - 1) + 1
  borders <- colSums(matrix(layer$padding, 2))
  pmax(4, ceiling((extent + 2 * borders) / layer$stride) + 2)
}

layer_maps <- function(layer) {
  size <- small_size(layer)
  check_countable(layer, size)
  overlap <- lapply(1:3, function(a) along(layer, a, rep(1, size[a])))
  reach <- lapply(1:3, function(a) along(layer, a, seq_len(size[a]) == ceiling(size[a] / 2)))
  taps <- inner_taps(layer)
  uneven <- taps[, "min"] < taps[, "max"]
  plane <- if (uneven[1] && !uneven[2]) c(3, 1) else c(3, 2)
  across <- setdiff(1:3, plane)
  # Of the axis that isn't drawn, the place nearest to the middle with most taps.
  counts <- overlap[[across]]
  inside <- which(counts == max(counts))
  at <- inside[which.min(abs(inside - length(counts) / 2))]
  each <- ceiling(max(lengths(overlap[plane])) / 200)
  map <- function(counts) outer(coarse(counts[[plane[1]]], each), coarse(counts[[plane[2]]], each))
  list(
    taps = taps, plane = plane, each = each,
    where = paste(axes[across], in_full(at), "of", in_full(length(counts))),
    reach = vapply(reach, function(r) sum(r > 0), 0),
    overlap = map(overlap) * counts[at], footprint = map(reach) * max(reach[[across]])
  )
}

# The largest of every 'each' counts, from the first on.
coarse <- function(counts, each) {
  if (each == 1) return(counts)
  apply(matrix(c(counts, rep(0, -length(counts) %% each)), each), 2, max)
}

# ---- Drawing --------------------------------------------------------------------------

# The side of one of width x height cells that fill a panel, in inches. The margins
# are below, left, above and right, in lines of text.
margins <- function(key = FALSE) c(3, 3.2, 3.1, if (key) 3.5 else 1) * par("csi")
cell_side <- function(width, height, margin) {
  room <- par("fin")
  max(1e-3, min((room[1] - margin[2] - margin[4]) / width,
                (room[2] - margin[1] - margin[3]) / height))
}

# Opens the next panel, with its first cell at the top or the bottom. What room the
# cells leave stays on the right and below.
panel <- function(width, height, upward, margin = margins()) {
  room <- par("fin")
  cell <- cell_side(width, height, margin)
  left <- margin[2] / room[1]
  top <- 1 - margin[3] / room[2]
  par(plt = c(left, left + cell * width / room[1], top - cell * height / room[2], top))
  ylim <- c(0.5, height + 0.5)
  plot.window(c(0.5, width + 0.5), if (upward) ylim else rev(ylim), xaxs = "i", yaxs = "i")
}

# 'size' cells, of 'each' voxels on an axis.
label_panel <- function(size, names, title, subtitle, each = 1) {
  for (side in 1:2) {
    last <- size[side] * each
    ticks <- unique(floor(pretty(c(0, last), 4)))
    apart <- 0.7 * (ticks[2] - ticks[1]) # as far from the 1 as looks even
    ticks <- c(1, ticks[ticks > 1 + apart & ticks <= last])
    axis(side, (ticks - 0.5) / each + 0.5, in_full(ticks), lwd = 0, lwd.ticks = 0.7,
         tcl = -0.25, las = 1, mgp = c(1.5, 0.4, 0), cex.axis = 0.85, col.ticks = "grey60",
         col.axis = "grey30")
    mtext(names[side], side, line = if (side == 1) 1.6 else 2.1, cex = par("cex") * 0.9)
  }
  mtext(title, 3, line = 1.4, adj = 0, font = 2, cex = par("cex"))
  mtext(subtitle, 3, line = 0.35, adj = 0, cex = par("cex") * 0.85, col = "grey30")
}

# Whole numbers from 0 on as colours: nothing, then light to dark, in 200 steps at most.
shade <- function(values, largest) {
  largest <- max(1, largest)
  steps <- min(largest, 200)
  colours <- c("grey94", hcl.colors(steps + 2, "Blues 3", rev = TRUE)[-1])
  colours[ceiling(values * steps / largest) + 1]
}

# Numbers go into the cells if they fit there, else into a key on the right.
draw_map <- function(maps, which, title, subtitle) {
  values <- maps[[which]]
  size <- dim(values)
  largest <- max(values)
  plot.new()
  cell <- cell_side(size[1], size[2], margins())
  number <- strwidth(in_full(max(maps$overlap)), "inches", cex = 1) / par("cex")
  letters <- 0.75 * cell / max(number, par("csi"))
  key <- letters < 0.55
  margin <- margins(key)
  cell <- cell_side(size[1], size[2], margin)
  panel(size[1], size[2], FALSE, margin)
  column <- as.vector(row(values))
  line <- as.vector(col(values))
  border <- if (cell > 0.04) "white" else NA # it would be wider than finer cells
  rect(column - 0.5, line - 0.5, column + 0.5, line + 0.5, col = shade(values, largest),
       border = border, lwd = min(1, 5 * cell))
  label_panel(size, axes[maps$plane], title, subtitle, maps$each)
  if (which == "footprint" && largest == 1) return() # dark or not says it all
  if (key) return(draw_key(values, par("csi") / cell))
  shown <- values > 0
  text(column[shown], line[shown], in_full(values[shown]), cex = min(0.9, letters),
       col = ifelse(values[shown] > 0.6 * largest, "white", "grey20"))
}

# At most eight of the numbers; 'step' is a line of text, in cells.
draw_key <- function(values, step) {
  key <- sort(unique(as.vector(values)))
  key <- key[unique(round(seq(1, length(key), length.out = min(8, length(key)))))]
  x <- nrow(values) + 0.5 + 0.5 * step
  y <- 0.5 + (seq_along(key) - 0.5) * step
  rect(x, y - step / 2, x + step, y + step / 2, col = shade(key, max(values)), border = "white")
  text(x + 1.3 * step, y, in_full(key), adj = c(0, 0.5), cex = 0.8, col = "grey30")
}

# First sample and channel as c(W, H, D).
volume_of <- function(x, layout) {
  if (is_tensor(x)) x <- as_array(x)
  if (layout == "torch") x <- aperm(x)
  size <- dim(x)[1:3]
  array(x[seq_len(prod(size))], size)
}

# What is drawn black and white; one value alone is grey.
grey_limits <- function(values) {
  finite <- values[is.finite(values)]
  limits <- if (length(finite)) range(finite) else c(0, 1)
  if (limits[1] == limits[2]) limits + c(-1, 1) else limits
}

draw_slices <- function(volume, name, upward) {
  middle <- (dim(volume) + 1) %/% 2
  limits <- grey_limits(volume)
  names <- rev(axes)
  for (across in 3:1) {
    plane <- setdiff(1:3, across)
    slice <- switch(across, volume[middle[1], , ], volume[, middle[2], ], volume[, , middle[3]])
    dim(slice) <- dim(volume)[plane]
    plot.new()
    panel(nrow(slice), ncol(slice), upward)
    image(0:nrow(slice) + 0.5, 0:ncol(slice) + 0.5, slice, zlim = limits,
          col = grey(0:255 / 255), add = TRUE)
    label_panel(dim(slice), names[plane], name,
                paste(names[across], in_full(middle[across]), "of", in_full(dim(volume)[across])))
  }
}

# ---- Summary --------------------------------------------------------------------------

#' What a layer costs
#'
#' @param object a [nn_conv_transpose3d()].
#' @param input_size (vector, optional): the input's size, c(D, H, W), or its whole
#'   shape, with channels or with samples and channels.
#' @param x what `summary()` returned.
#' @param ... not used.
#' @return A list of class "summary.nn_conv_transpose3d", which has a print method:
#'   `layer` (the arguments, as text), `shapes` of the parameters, their number
#'   `parameters`, and `taps`: fewest and most taps that meet in an output away from
#'   the border, axis by axis (see [plot.nn_conv_transpose3d()]). With input_size also
#'   `input_shape`, `output_shape`, `multiply_adds` (those with voxels that exist,
#'   for results that are kept) and `overlap`, as taps, but for this input and with
#'   the border.
#' @examples
#' m <- nn_conv_transpose3d(16, 33, c(3, 5, 2), stride = c(2, 1, 1), padding = c(0, 4, 2))
#' summary(m, c(20, 16, 10, 50, 100))
#' @export
summary.nn_conv_transpose3d <- function(object, input_size = NULL, ...) {
  layer <- self_of(object)$layer
  parameters <- parameters_of(object)
  result <- list(
    layer = format(object), shapes = lapply(parameters, dim),
    parameters = sum(vapply(parameters, element_count, 0)), taps = inner_taps(layer)
  )
  if (!is.null(input_size)) result <- c(result, costs(layer, input_size))
  structure(result, class = "summary.nn_conv_transpose3d")
}

costs <- function(layer, input_size) {
  shape <- whole(input_size, "input_size", 0, 3:5)
  if (length(shape) == 3) shape <- c(layer$channels[1], shape)
  if (shape[length(shape) - 3] != layer$channels[1]) {
    refuse("input_size has ", in_full(shape[length(shape) - 3]), " channels, but in_channels is ",
           in_full(layer$channels[1]))
  }
  output <- .Call(C_output_shape, layer, shape, NULL)
  size <- shape[length(shape) - 2:0]
  check_countable(layer, size)
  overlap <- lapply(1:3, function(a) along(layer, a, rep(1, size[a])))
  samples <- if (length(shape) == 5) shape[1] else 1
  channels <- layer$channels[1] * layer$channels[2] / layer$channels[3]
  ranges <- t(vapply(overlap, range, c(0, 0)))
  dimnames(ranges) <- list(axes, c("min", "max"))
  list(
    input_shape = shape, output_shape = output,
    multiply_adds = samples * channels * prod(vapply(overlap, sum, 0)), overlap = ranges
  )
}

#' @rdname summary.nn_conv_transpose3d
#' @export
print.summary.nn_conv_transpose3d <- function(x, ...) {
  count <- function(n) format(n, big.mark = ",", scientific = FALSE, digits = 15)
  spans <- function(taps) {
    text <- paste(in_full(taps[, 1]), "to", in_full(taps[, 2]))
    text <- ifelse(taps[, 1] == taps[, 2], in_full(taps[, 1]), text)
    paste(axes, text, collapse = ", ")
  }
  cat(x$layer, "\n", sep = "")
  for (name in names(x$shapes)) cat("  ", name, ": ", show_shape(x$shapes[[name]]), "\n", sep = "")
  cat("  parameters: ", count(x$parameters), "\n", sep = "")
  if (!is.null(x$output_shape)) {
    cat("  input: ", show_shape(x$input_shape), "\n  output: ", show_shape(x$output_shape),
        "\n  multiply-adds: ", count(x$multiply_adds), "\n", sep = "")
  }
  title <- overlap_title(x$taps)
  taps <- if (title == "Overlaps even") paste(":", in_full(prod(x$taps[, 1])), "taps")
  cat("  ", tolower(title), taps, " (", spans(x$taps), ")\n", sep = "")
  if (!is.null(x$overlap)) cat("  with the border: ", spans(x$overlap), "\n", sep = "")
  invisible(x)
}
