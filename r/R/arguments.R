# arguments: every value that a user gives is checked here, with its name.

axes <- c("depth", "height", "width")
largest <- .Machine$integer.max

refuse <- function(...) stop(..., call. = FALSE)

show_value <- function(x) {
  if (is.null(x)) return("NULL")
  if (!is.atomic(x) || is.object(x)) return(paste("an object of class", class(x)[1]))
  if (!length(x)) return(paste("an empty", class(x)[1]))
  if (is.character(x)) return(encodeString(x[1], quote = "\""))
  few <- vapply(x[seq_len(min(length(x), 6))], show_number, "")
  paste(c(few, if (length(x) > 6) "..."), collapse = ", ")
}

# 100000, not 1e+05, as far as doubles are exact.
show_number <- function(x) {
  exact <- is.numeric(x) && is.finite(x) && x == floor(x) && abs(x) < 2^53
  format(x, digits = 15, trim = TRUE, scientific = if (exact) FALSE else getOption("scipen"))
}

# Numbers that mean what they say: a class, such as integer64, may store other ones.
is_plain_numeric <- function(x) is.numeric(x) && !is.object(x)

# Whole numbers as doubles, from 'smallest' on (one, or one for each value); 'counts' says
# how many are legal.
whole <- function(x, name, smallest = 1, counts = 1, most = largest) {
  range_from <- function(low) {
    paste(", but must be a whole number from", show_number(low), "to", show_number(most))
  }
  if (!is_plain_numeric(x)) refuse(name, " is ", show_value(x), range_from(max(smallest)))
  of_axes <- 3 %in% counts && !0 %in% counts
  if (!length(x) %in% counts) {
    refuse(name, " has ", length(x), " values, but must have ",
           if (identical(counts, 0:5)) "at most 5" else paste(counts, collapse = " or "),
           if (of_axes) " (depth, height, width)")
  }
  wrong <- which(is.na(x) | x != floor(x) | x < smallest | x > most)
  if (length(wrong)) {
    at <- wrong[1]
    refuse(value_at(x, name, at, of_axes), range_from(rep_len(smallest, length(x))[at]))
  }
  as.double(x)
}

# "padding (after) is -1 on the width axis": of three values one for each axis, of six one
# for each side of it, of four or five the last three.
value_at <- function(x, name, at, of_axes) {
  count <- length(x)
  axis <- if (count == 6) (at + 1) %/% 2 else at - (count - 3)
  side <- if (of_axes && count == 6) if (at %% 2 == 1) " (before)" else " (after)"
  paste0(name, side, " is ", show_value(x[at]),
         if (of_axes && count >= 3 && axis >= 1) paste0(" on the ", axes[axis], " axis"))
}

triple <- function(x, name, smallest = 1) rep_len(whole(x, name, smallest, c(1, 3)), 3)

flag <- function(x, name) {
  if (!is.logical(x) || length(x) != 1 || is.na(x)) {
    refuse(name, " is ", show_value(x), ", but must be TRUE or FALSE")
  }
  x
}

number <- function(x, name, smallest = -Inf, largest = Inf) {
  if (!is_plain_numeric(x) || length(x) != 1 || is.na(x) || x < smallest || x > largest) {
    refuse(name, " is ", show_value(x), ", but must be a number",
           if (is.finite(smallest)) paste(" from", show_number(smallest)),
           if (is.finite(largest)) paste(" to", show_number(largest)))
  }
  as.double(x)
}

one_of <- function(x, name, choices) {
  if (!is.character(x) || length(x) != 1 || !x %in% choices) {
    several <- is.character(x) && length(x) > 1
    refuse(name, if (several) paste(" has", length(x), "values") else paste(" is", show_value(x)),
           ", but must be one of ", paste0("\"", choices, "\"", collapse = ", "))
  }
  x
}

# The layer's arguments as the C side reads them, field by field; padding as six
# values, before and after on each axis.
layer_arguments <- function(in_channels, out_channels, kernel_size, stride, padding,
                            output_padding, groups, dilation, padding_mode,
                            precision = "highest") {
  padding <- whole(padding, "padding", 0, c(1, 3, 6))
  if (length(padding) < 6) padding <- rep(rep_len(padding, 3), each = 2)
  list(
    channels = c(whole(in_channels, "in_channels"), whole(out_channels, "out_channels"),
                 whole(groups, "groups")),
    kernel_size = triple(kernel_size, "kernel_size"),
    stride = triple(stride, "stride"),
    padding = padding,
    output_padding = triple(output_padding, "output_padding", 0),
    dilation = triple(dilation, "dilation"),
    padding_mode = one_of(padding_mode, "padding_mode",
                          c("zeros", "reflect", "replicate", "circular")),
    precision = one_of(precision, "precision", c("highest", "high", "medium"))
  )
}

# output_size as PyTorch takes it: three sizes, or the whole shape, whose N may be 0.  In
# native layout three only: nobody could tell a whole shape in one order from the other's.
wanted_size <- function(output_size, rank, layout = "torch") {
  if (is.null(output_size)) return(NULL)
  smallest <- if (length(output_size) == 5) c(0, 1, 1, 1, 1) else 1
  size <- whole(output_size, "output_size", smallest, if (layout == "native") 3 else c(3, rank))
  size[seq.int(length(size) - 2, length(size))]
}
