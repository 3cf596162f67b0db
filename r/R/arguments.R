# arguments: every value that a user gives is checked here, with its name.

axes <- c("depth", "height", "width")
largest <- .Machine$integer.max

refuse <- function(...) stop(..., call. = FALSE)

show_value <- function(x) {
  if (is.null(x)) return("NULL")
  if (!is.atomic(x) || is.object(x)) return(paste("an object of class", class(x)[1]))
  if (!length(x)) return(paste("an empty", class(x)[1]))
  if (is.character(x)) return(encodeString(x[1], quote = "\""))
  few <- x[seq_len(min(length(x), 6))]
  paste(c(format(few, digits = 15, trim = TRUE), if (length(x) > 6) "..."), collapse = ", ")
}

# Whole numbers as doubles, from 'smallest' on; 'counts' says how many are legal.
whole <- function(x, name, smallest = 1, counts = 1, most = largest) {
  if (!is.numeric(x) || is.object(x)) {
    refuse(name, " is ", show_value(x), ", but must be a whole number")
  }
  if (!length(x) %in% counts) {
    refuse(name, " has ", length(x), " values, but must have ",
           if (identical(counts, 0:5)) "at most 5" else paste(counts, collapse = " or "),
           if (3 %in% counts && !0 %in% counts) " (depth, height, width)")
  }
  wrong <- which(is.na(x) | x != floor(x) | x < smallest | x > most)
  if (length(wrong)) {
    at <- wrong[1]
    where <- if (length(x) == 3) paste0(" on the ", axes[at], " axis")
    refuse(name, " is ", show_value(x[at]), where, ", but must be a whole number from ",
           smallest, " to ", most)
  }
  as.double(x)
}

triple <- function(x, name, smallest = 1) rep_len(whole(x, name, smallest, c(1, 3)), 3)

flag <- function(x, name) {
  if (!is.logical(x) || length(x) != 1 || is.na(x)) {
    refuse(name, " is ", show_value(x), ", but must be TRUE or FALSE")
  }
  x
}

number <- function(x, name, smallest = -Inf, largest = Inf) {
  if (!is.numeric(x) || length(x) != 1 || is.na(x) || x < smallest || x > largest) {
    refuse(name, " is ", show_value(x), ", but must be a number",
           if (is.finite(smallest)) paste(" from", smallest),
           if (is.finite(largest)) paste(" to", largest))
  }
  as.double(x)
}

one_of <- function(x, name, choices) {
  if (!is.character(x) || length(x) != 1 || !x %in% choices) {
    refuse(name, " is ", show_value(x), ", but must be one of ",
           paste0("\"", choices, "\"", collapse = ", "))
  }
  x
}

# The layer's arguments as the C side reads them, field by field; padding as six
# values, before and after on each axis.
layer_arguments <- function(in_channels, out_channels, kernel_size, stride, padding,
                            output_padding, groups, dilation, padding_mode) {
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
                          c("zeros", "reflect", "replicate", "circular"))
  )
}

# output_size as PyTorch takes it: three sizes, or the whole shape.
wanted_size <- function(output_size, rank) {
  if (is.null(output_size)) return(NULL)
  size <- whole(output_size, "output_size", 1, c(3, rank))
  size[seq.int(length(size) - 2, length(size))]
}
