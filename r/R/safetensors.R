# safetensors: 8 bytes of header length, a header in JSON, then the numbers.

#' Files in the safetensors format
#'
#' The format in which Python keeps the parameters of networks. A layer's file holds
#' `weight`, `bias` and, as metadata, the layer's arguments: the command `convt3d`
#' writes and reads the same.
#'
#' `safetensors_load()` reads tensors of type F32 and F64. What it returns can go
#' into `m$load_state_dict()`. `safetensors_save()` replaces a file only when the new
#' one is whole. Saving needs no other package; reading, with `safetensors_load()` or
#' `safetensors_layer()`, needs the package jsonlite. Either refuses what isn't a
#' regular file: folders, FIFOs and devices.
#'
#' @param x a module, or a named list of tensors and arrays (arrays are written as
#'   F64, with their dimensions in order).
#' @param path the file's name.
#' @param metadata (named character vector, optional): texts to go with the tensors.
#'   For a [nn_conv_transpose3d()] its arguments are added.
#' @return `safetensors_save()`: path, invisibly. `safetensors_load()`: a named list of
#'   tensors, with the file's metadata as attribute "metadata".
#'   `safetensors_layer()`: a [nn_conv_transpose3d()] made from a layer's file.
#' @references <https://github.com/huggingface/safetensors>
#' @examples
#' path <- tempfile(fileext = ".safetensors")
#' m <- nn_conv_transpose3d(2, 3, 2, stride = 2)
#' safetensors_save(m, path)
#' if (requireNamespace("jsonlite", quietly = TRUE)) {
#'   names(safetensors_load(path))
#'   safetensors_layer(path)
#' }
#' @export
safetensors_save <- function(x, path, metadata = NULL) {
  tensors <- if (is_module(x)) parameters_of(x) else x
  if (!is.list(tensors) || (length(tensors) && is.null(names(tensors))) ||
        anyDuplicated(names(tensors)) || any(names(tensors) %in% c(NA, "", "__metadata__"))) {
    refuse("x must be a module or a list of tensors with names, each once")
  }
  check_path(path)
  check_metadata(metadata)
  if (inherits(x, "nn_conv_transpose3d")) metadata <- c(layer_metadata(x), metadata)
  for (name in names(tensors)) {
    if (is_tensor(tensors[[name]])) next
    view <- array_view(tensors[[name]], name, "torch")
    tensors[[name]] <- new_tensor(convert(view, "float64", FALSE), view[[2]])
  }
  if (identical(.Call(C_is_regular, path), FALSE)) {
    refuse("path '", path, "' can't be written: it is no regular file")
  }
  temporary <- sprintf("%s.%d.tmp", path.expand(path), Sys.getpid())
  on.exit(unlink(temporary, expand = FALSE))
  write_safetensors(tensors, metadata, temporary, path)
  if (!suppressWarnings(file.rename(temporary, path))) refuse("path '", path, "' can't be written")
  invisible(path)
}

# Numbers for people and headers: 100000, not 1e+05.
in_full <- function(x) format(x, scientific = FALSE, digits = 15, trim = TRUE)

check_path <- function(path) {
  if (!is.character(path) || length(path) != 1 || is.na(path) || !nzchar(path)) {
    refuse("path is ", show_value(path), ", but must be the name of a file")
  }
}

check_metadata <- function(metadata) {
  if (is.null(metadata)) return()
  if (!is.character(metadata) || is.null(names(metadata)) || anyNA(metadata) ||
        any(names(metadata) %in% c(NA, ""))) {
    refuse("metadata must be a vector of texts with names")
  }
}

# Into the file 'temporary'; 'path' is its name in messages.
write_safetensors <- function(tensors, metadata, temporary, path) {
  size_of <- function(t) element_count(t) * if (dtype_name(t) == "float32") 4 else 8
  bytes <- vapply(tensors, size_of, 0)
  ends <- cumsum(bytes)
  entries <- vapply(seq_along(tensors), function(i) {
    t <- tensors[[i]]
    paste0(json_string(names(tensors)[i]), ":{\"dtype\":\"",
           if (dtype_name(t) == "float32") "F32" else "F64", "\",\"shape\":[",
           paste(in_full(field(t, "shape")), collapse = ","), "],\"data_offsets\":[",
           in_full(ends[i] - bytes[i]), ",", in_full(ends[i]), "]}")
  }, "")
  if (length(metadata)) {
    texts <- paste0(json_string(names(metadata)), ":", json_string(metadata), collapse = ",")
    entries <- c(paste0("\"__metadata__\":{", texts, "}"), entries)
  }
  header <- charToRaw(enc2utf8(paste0("{", paste(entries, collapse = ","), "}")))
  header <- c(header, rep(charToRaw(" "), -length(header) %% 8))
  file <- tryCatch(suppressWarnings(file(temporary, "wb")),
                   error = function(e) refuse("path '", path, "' can't be written"))
  open <- TRUE
  on.exit(if (open) close(file))
  written <- suppressWarnings({ # a full disk is no error to writeBin(), nor to close()
    writeBin(c(length(header), 0L), file, endian = "little")
    writeBin(header, file)
    for (t in tensors) writeBin(field(t, "data"), file, endian = "little")
    open <- FALSE
    close(file)
    file.size(temporary)
  })
  if (!identical(written, 8 + length(header) + sum(bytes))) {
    refuse("path '", path, "' can't be written whole: ", in_full(written), " bytes of ",
           in_full(8 + length(header) + sum(bytes)))
  }
}

json_string <- function(x) {
  x <- gsub("([\"\\\\])", "\\\\\\1", enc2utf8(x))
  for (code in 1:31) {
    x <- gsub(intToUtf8(code), sprintf("\\u%04x", code), x, fixed = TRUE)
  }
  paste0("\"", x, "\"")
}

#' @rdname safetensors_save
#' @export
safetensors_load <- function(path) {
  if (!requireNamespace("jsonlite", quietly = TRUE)) {
    refuse("reading safetensors files needs the package jsonlite")
  }
  check_path(path)
  file <- open_file(path)
  on.exit(close(file))
  total <- file.size(path)
  take <- function(what, count) {
    data <- readBin(file, what, count, endian = "little")
    if (length(data) != count) refuse("path '", path, "' can't be read whole")
    data
  }
  bad <- function(...) refuse("path '", path, "' is no valid safetensors file: ", ...)
  if (total < 8) bad("it has ", total, " bytes")
  size <- sum(as.double(as.integer(take("raw", 8))) * 256^(0:7))
  if (size > total - 8) bad("its header would be ", in_full(size), " bytes long")
  header <- read_header(take("raw", size), bad)
  metadata <- header[["__metadata__"]]
  entries <- header[names(header) != "__metadata__"]
  check_entries(entries, total - 8 - size, bad)
  # Without gaps, so the next tensor in this order is where the last one ended.
  offsets <- lapply(entries, function(entry) as.double(unlist(entry$data_offsets)))
  tensors <- stats::setNames(vector("list", length(entries)), names(entries))
  for (i in order(vapply(offsets, `[`, 0, 1), vapply(offsets, `[`, 0, 2))) {
    bytes <- diff(offsets[[i]])
    data <- if (entries[[i]]$dtype == "F64") take("double", bytes / 8) else take("raw", bytes)
    tensors[[i]] <- new_tensor(data, as.double(unlist(entries[[i]]$shape)))
  }
  structure(tensors, metadata = unlist(metadata))
}

# To read from its beginning.  By its whole name: file("stdin") is no file.
open_file <- function(path) {
  regular <- .Call(C_is_regular, path)
  if (identical(regular, FALSE)) refuse("path '", path, "' can't be read: it is no regular file")
  tryCatch(suppressWarnings(file(normalizePath(path, mustWork = TRUE), "rb")),
           error = function(e) refuse("path '", path, "' can't be read"))
}

read_header <- function(bytes, bad) {
  if (any(bytes == 0)) bad("its header is no text")
  text <- rawToChar(bytes)
  Encoding(text) <- "UTF-8"
  if (!startsWith(text, "{") || !validUTF8(text)) bad("its header is no text in JSON")
  header <- tryCatch(jsonlite::parse_json(text), error = function(e) NULL)
  if (!is.list(header)) bad("its header is no JSON")
  if (anyDuplicated(names(header))) bad("a name is there twice")
  if (!all(vapply(header[["__metadata__"]], is.character, NA))) bad("__metadata__ isn't all texts")
  header
}

# Types, shapes and places; together the tensors fill the file, without a gap.
check_entries <- function(entries, total, bad) {
  count <- function(x) {
    is.list(x) && all(vapply(x, function(n) {
      is.numeric(n) && length(n) == 1 && n >= 0 && n == floor(n) && n <= 2^53
    }, NA))
  }
  for (name in names(entries)) {
    entry <- entries[[name]]
    if (!is.list(entry) || !setequal(names(entry), c("dtype", "shape", "data_offsets")) ||
          !count(entry$shape) || !count(entry$data_offsets) || length(entry$data_offsets) != 2) {
      bad("the entry of '", name, "' is malformed")
    }
    if (!identical(entry$dtype, "F32") && !identical(entry$dtype, "F64")) {
      refuse("tensor '", name, "' is of dtype ", show_value(entry$dtype),
             ", but must be F32 or F64")
    }
    if (length(entry$shape) > 5) {
      refuse("tensor '", name, "' has ", in_full(length(entry$shape)),
             " axes, but must have at most 5")
    }
    size <- prod(unlist(entry$shape)) * if (entry$dtype == "F32") 4 else 8
    if (diff(unlist(entry$data_offsets)) != size) bad("the size of '", name, "' isn't its shape's")
  }
  starts <- vapply(entries, function(entry) as.double(entry$data_offsets[[1]]), 0)
  ends <- vapply(entries, function(entry) as.double(entry$data_offsets[[2]]), 0)
  order <- order(starts, ends)
  if (any(starts[order] != c(0, ends[order])[seq_along(starts)]) || sum(ends - starts) != total) {
    bad("its tensors overlap or leave gaps")
  }
}

# ---- Layers ------------------------------------------------------------------------

layer_metadata <- function(module) {
  layer <- self_of(module)$layer
  text <- function(x) {
    paste(in_full(if (all(x == x[1])) x[1] else x), collapse = ",")
  }
  padding <- shown_padding(layer$padding)
  c(in_channels = text(layer$channels[1]), out_channels = text(layer$channels[2]),
    kernel_size = text(layer$kernel_size), stride = text(layer$stride), padding = text(padding),
    output_padding = text(layer$output_padding), dilation = text(layer$dilation),
    groups = text(layer$channels[3]), padding_mode = layer$padding_mode,
    bias = if (is.null(self_of(module)$bias)) "false" else "true")
}

#' @rdname safetensors_save
#' @export
safetensors_layer <- function(path) {
  tensors <- safetensors_load(path)
  metadata <- attr(tensors, "metadata")
  names <- c("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding",
             "groups", "dilation")
  missing <- setdiff(names, names(metadata))
  if (length(missing)) {
    refuse("path '", path, "' holds no layer: its metadata lack ", paste(missing, collapse = ", "))
  }
  numbers <- lapply(stats::setNames(names, names), function(name) {
    suppressWarnings(as.double(strsplit(metadata[[name]], ",", fixed = TRUE)[[1]]))
  })
  mode <- if ("padding_mode" %in% names(metadata)) metadata[["padding_mode"]] else "zeros"
  module <- do.call(nn_conv_transpose3d, c(numbers, list(bias = "bias" %in% names(tensors),
                                                         padding_mode = mode)))
  dtypes <- unique(vapply(tensors, dtype_name, ""))
  if (identical(dtypes, "float64")) module$to(torch_double())
  module$load_state_dict(tensors)
  module
}
