# helper-golden: the files that tools/make_golden.py makes from PyTorch, read without
# the package's own reader; and what the tests say again and again.

golden_path <- function(name) test_path("golden", name)
golden_lines <- function(name) readLines(golden_path(name))

# All tensors of a file as list(dtype, shape, bytes).  These files' headers are plain
# enough for a pattern.
golden_tensors <- function(name) {
  path <- golden_path(name)
  bytes <- readBin(path, "raw", file.size(path))
  size <- sum(as.integer(bytes[1:8]) * 256^(0:7))
  header <- rawToChar(bytes[8 + seq_len(size)])
  pattern <- paste0("\"([^\"]+)\":\\{\"dtype\":\"(F32|F64)\",\"shape\":\\[([0-9,]*)\\],",
                    "\"data_offsets\":\\[([0-9]+),([0-9]+)\\]\\}")
  found <- regmatches(header, gregexpr(pattern, header))[[1]]
  parts <- regmatches(found, regexec(pattern, found))
  tensors <- lapply(parts, function(part) {
    ends <- as.double(part[5:6])
    list(dtype = part[3], shape = as.double(strsplit(part[4], ",")[[1]]),
         bytes = bytes[8 + size + ends[1] + seq_len(ends[2] - ends[1])])
  })
  stats::setNames(tensors, vapply(parts, `[`, "", 2))
}

# As an R array, first axis outermost as in the file.
golden_array <- function(tensor) {
  width <- if (tensor$dtype == "F32") 4 else 8
  values <- readBin(tensor$bytes, "double", length(tensor$bytes) / width, width,
                    endian = "little")
  if (length(tensor$shape) < 2) return(values)
  aperm(array(values, rev(tensor$shape)), rev(seq_along(tensor$shape)))
}

# "n2ci4co6k3s2:\"name\"", as include/convt3d.h describes it.
parse_problem <- function(text) {
  fields <- regmatches(text, gregexpr("(nb|ci|co|op|f64|m[a-z]+|[ngikspd])([0-9x]*)",
                                      sub(":.*", "", text), perl = TRUE))[[1]]
  keys <- sub("[0-9x]*$", "", fields)
  get <- function(key, default) {
    at <- match(key, keys)
    if (is.na(at)) return(default)
    as.double(strsplit(sub("^[a-z]+", "", fields[at]), "x")[[1]])
  }
  mode <- grep("^m", keys, value = TRUE)
  p <- problem(get("ci"), get("co"), get("i"), get("k"), get("s", 1), get("p", 0), get("op", 0),
               get("g", 1), get("d", 1), if (length(mode)) sub("m", "", mode) else "zeros",
               get("n", 1))
  c(p, list(bias = !"nb" %in% keys, double = "f64" %in% fields,
            name = sub(".*:\"(.*)\"$", "\\1", text)))
}

# Tensor data as bytes, through the file format.
bytes_of <- function(tensor) {
  path <- tempfile()
  on.exit(unlink(path))
  safetensors_save(list(t = tensor), path)
  all <- readBin(path, "raw", file.size(path))
  count <- tensor$numel() * if (identical(tensor$dtype, torch_double())) 8 else 4
  utils::tail(all, count)
}

same_bytes <- function(a, b) expect_identical(bytes_of(a), bytes_of(b))
float32 <- function(x) torch_tensor(x)
float64 <- function(x, ...) torch_tensor(x, dtype = torch_double(), ...)

# An R error whose text holds all of these words.
expect_refused <- function(code, ...) {
  caught <- tryCatch({
    code
    NULL
  }, error = function(e) conditionMessage(e))
  if (is.null(caught)) {
    fail(paste("no error, but one was expected that says:", paste(c(...), collapse = " ... ")))
    return(invisible())
  }
  for (word in c(...)) expect_match(caught, word, fixed = TRUE)
  invisible(caught)
}

with_variable <- function(name, value, code) {
  before <- Sys.getenv(name, NA)
  on.exit(if (is.na(before)) Sys.unsetenv(name) else do.call(Sys.setenv,
                                                            stats::setNames(list(before), name)))
  do.call(Sys.setenv, stats::setNames(list(value), name))
  force(code)
}
