# Files in the safetensors format: ours, PyTorch's, and broken ones.

bytes_in <- function(path) readBin(path, "raw", file.size(path))
little <- function(number) as.raw(number %/% 256^(0:7) %% 256)

# A file of this header text and this many bytes of zeros.
raw_file <- function(header, data = 0, size = nchar(header, "bytes")) {
  path <- tempfile(fileext = ".safetensors")
  force(size)
  if (is.character(header)) header <- charToRaw(header)
  writeBin(c(if (is.raw(size)) size else little(size), header, raw(data)), path)
  path
}

entry <- function(name, dtype = "F32", shape = "2", from = 0, to = 8) {
  sprintf("\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%s,%s]}", name, dtype, shape,
          from, to)
}
header_of <- function(...) paste0("{", paste(..., sep = ","), "}")

expect_bad <- function(header, data, ..., size = nchar(header, "bytes")) {
  path <- raw_file(header, data, size)
  on.exit(unlink(path))
  expect_refused(safetensors_load(path), path, ...)
}

test_that("what is saved is loaded, byte by byte", {
  skip_if_not_installed("jsonlite")
  path <- tempfile()
  on.exit(unlink(path))
  tensors <- list(a = torch_randn(2, 3, 4), `b \\ "c"\n` = torch_randn(5, dtype = torch_double()),
                  empty = torch_zeros(0, 3), none = torch_ones(), "\u00e9\u4e2d" = float32(1:3))
  result <- withVisible(safetensors_save(tensors, path, metadata = c(who = "me \"and\" \u00e9")))
  expect_identical(result, list(value = path, visible = FALSE))
  back <- safetensors_load(path)
  expect_identical(names(back), names(tensors))
  for (name in names(tensors)) {
    same_bytes(back[[name]], tensors[[name]])
    expect_identical(back[[name]]$shape, tensors[[name]]$shape)
    expect_identical(back[[name]]$dtype, tensors[[name]]$dtype)
  }
  expect_identical(attr(back, "metadata"), c(who = "me \"and\" \u00e9"))
  safetensors_save(list(x = array(1:6, c(1, 2, 3))), path)
  expect_identical(as_array(safetensors_load(path)$x), array(as.double(1:6), c(1, 2, 3)))
  safetensors_save(list(), path)
  expect_identical(length(safetensors_load(path)), 0L)
})

test_that("the header is aligned, and what the format says", {
  path <- tempfile()
  on.exit(unlink(path))
  safetensors_save(list(ab = float32(c(1, -2))), path)
  bytes <- bytes_in(path)
  text <- header_of(entry("ab"))
  size <- as.integer(bytes[1]) + 256 * as.integer(bytes[2])
  expect_identical(size %% 8, 0)
  expect_identical(trimws(rawToChar(bytes[8 + seq_len(size)])), text)
  expect_identical(bytes[-seq_len(8 + size)], writeBin(c(1, -2), raw(), 4))
})

test_that("PyTorch's state_dict can be loaded", {
  skip_if_not_installed("jsonlite")
  torch_manual_seed(2024)
  want <- nn_conv_transpose3d(4, 6, c(3, 2, 3), stride = 2, groups = 2)
  state <- safetensors_load(golden_path("state_dict.safetensors"))
  expect_setequal(names(state), c("weight", "bias"))
  m <- nn_conv_transpose3d(4, 6, c(3, 2, 3), stride = 2, groups = 2)
  m$load_state_dict(state)
  same_bytes(m$weight, want$weight)
  same_bytes(m$bias, want$bias)
  all <- safetensors_load(golden_path("layers.safetensors"))
  by_hand <- golden_tensors("layers.safetensors")
  expect_setequal(names(all), names(by_hand))
  for (name in names(all)) expect_identical(bytes_of(all[[name]]), by_hand[[name]]$bytes)
})

test_that("a layer's file makes the layer again", {
  skip_if_not_installed("jsonlite")
  path <- tempfile()
  on.exit(unlink(path))
  layers <- list(nn_conv_transpose3d(2, 3, 2),
                 nn_conv_transpose3d(4, 6, c(3, 2, 4), c(1, 2, 3), c(1, 0, 2), c(0, 1, 1), 2, FALSE,
                                     c(2, 1, 1), "replicate"),
                 nn_conv_transpose3d(2, 2, 3, padding = c(0, 1, 1, 0, 1, 1))$to(torch_double()))
  for (m in layers) {
    safetensors_save(m, path, metadata = c(note = "mine"))
    expect_identical(attr(safetensors_load(path), "metadata")[["note"]], "mine")
    made <- withVisible(safetensors_layer(path))
    expect_true(made$visible)
    same <- made$value
    expect_identical(format(same), format(m))
    same_bytes(same$weight, m$weight)
    x <- array(rnorm(m$in_channels * 60), c(1, m$in_channels, 3, 4, 5))
    expect_identical(same(x), m(x))
  }
  safetensors_save(list(weight = float32(1)), path)
  expect_refused(safetensors_layer(path), path, "no layer", "in_channels")
  s <- nn_sequential(nn_conv_transpose3d(1, 1, 1), nn_relu())
  safetensors_save(s, path)
  expect_identical(names(safetensors_load(path)), c("0.weight", "0.bias"))
})

test_that("a file cut off anywhere is refused", {
  skip_if_not_installed("jsonlite")
  path <- tempfile()
  on.exit(unlink(path))
  safetensors_save(list(a = float32(1:3), b = float64(1)), path)
  bytes <- bytes_in(path)
  for (length in seq_along(bytes) - 1) {
    writeBin(bytes[seq_len(length)], path)
    expect_refused(safetensors_load(path), path)
  }
  writeBin(c(bytes, as.raw(0)), path)
  expect_refused(safetensors_load(path), path, "gaps")
})

test_that("headers of impossible length", {
  skip_if_not_installed("jsonlite")
  good <- header_of(entry("a"))
  expect_bad(good, 8, "header", size = 0)
  expect_bad(good, 8, "header would be", size = nchar(good) + 9)
  expect_bad(good, 8, "header", size = 2^40)
  expect_bad(good, 8, "header", size = as.raw(c(0, 0, 0, 0, 0, 0, 0, 0x80)))
  expect_bad(good, 8, "header", size = as.raw(rep(0xff, 8)))
  expect_bad(good, 8, "header", size = nchar(good) - 1)
})

test_that("headers that aren't what they should be", {
  skip_if_not_installed("jsonlite")
  for (text in c("[]", "1", "null", "\"a\"", "{", "{\"a\":}", "{}{}", " {}", "x", "{\"a\":1}",
                 "{\"a\":[]}", "{\"a\":{}}", "{\"a\":null}", "{\"__metadata__\":{\"a\":1}}",
                 "{\"__metadata__\":1}", "{\"__metadata__\":[]")) {
    expect_bad(text, 0)
  }
  expect_bad(c(charToRaw("{\"a"), as.raw(0xff), charToRaw("\":1}")), 0, "text",
             size = 8)
  expect_bad(c(charToRaw("{}"), as.raw(0)), 0, "text", size = 3)
  expect_bad(paste0(strrep("[", 1e5), strrep("]", 1e5)), 0)
  expect_bad(paste0("{\"a\":", strrep("[", 1e4), strrep("]", 1e4), "}"), 0)
})

test_that("entries that contradict each other or their file", {
  skip_if_not_installed("jsonlite")
  load <- function(header, data) safetensors_load(raw_file(header, data))
  expect_identical(as_array(load(header_of(entry("a")), 8)$a), c(0, 0))
  expect_bad(header_of(entry("a"), entry("a", "F32", "2", 8, 16)), 16, "twice")
  expect_bad(header_of(entry("a"), entry("b", "F32", "2", 4, 12)), 12, "overlap")
  expect_bad(header_of(entry("a"), entry("b")), 8, "overlap")
  expect_bad(header_of(entry("a"), entry("b", "F32", "2", 12, 20)), 20, "gaps")
  expect_bad(header_of(entry("a", "F32", "2", 4, 12)), 12, "gaps")
  expect_bad(header_of(entry("a", "F32", "2", 0, 8)), 9, "gaps")
  expect_bad(header_of(entry("a", "F32", "3")), 8, "'a'")
  expect_bad(header_of(entry("a", "F64")), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "2", 8, 0)), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "2", -8, 0)), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "-2", 0, 8)), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "-1,-2", 0, 8)), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "1.5", 0, 6)), 6, "'a'")
  expect_bad(header_of(entry("a", "F32", "\"2\"", 0, 8)), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "1e300,1e300")), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "4294967296,4294967296,4294967296,4294967296")), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "null")), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "[2]")), 8, "'a'")
  expect_bad(header_of(entry("a", "F32", "true,2")), 8, "'a'")
  expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "'a'")
  expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "'a'")
  expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[[0,8]]}}", 8, "'a'")
  expect_bad("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "'a'")
  expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "'a'")
  for (dtype in c("F16", "I32", "f32", "", "BOOL")) {
    path <- raw_file(header_of(entry("a", dtype)), 8)
    expect_refused(safetensors_load(path), "'a'", dtype, "F32 or F64")
  }
  number <- raw_file("{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8)
  expect_refused(safetensors_load(number), "'a'", "32", "F32 or F64")
  expect_refused(load(header_of(entry("a", "F32", "1,1,1,1,1,2")), 8), "'a'", "at most 5")
})

test_that("many entries are read in bounded time", {
  skip_if_not_installed("jsonlite")
  path <- tempfile()
  on.exit(unlink(path))
  count <- 3000
  tensors <- stats::setNames(rep(list(float32(1)), count), paste0("t", seq_len(count)))
  safetensors_save(tensors, path)
  expect_lt(system.time(back <- safetensors_load(path))[["elapsed"]], 5)
  expect_identical(length(back), as.integer(count))
})

test_that("paths that can't be read or written", {
  skip_if_not_installed("jsonlite")
  folder <- tempfile()
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  missing <- file.path(folder, "missing")
  expect_refused(safetensors_load(missing), missing, "can't be read")
  expect_refused(safetensors_load(folder), folder, "can't be read")
  path <- file.path(folder, "empty")
  file.create(path)
  expect_refused(safetensors_load(path), path, "0 bytes")
  beyond <- file.path(missing, "file")
  expect_refused(safetensors_save(list(a = 1), beyond), paste0("'", beyond, "' can't be written"))
  expect_refused(safetensors_save(list(a = 1), folder), folder, "can't be written")
  expect_identical(dir(folder, all.files = TRUE, no.. = TRUE), "empty")
  for (path in list(NULL, NA, 1, character(), c("a", "b"), list("a"), "", NA_character_)) {
    expect_refused(safetensors_load(path), "path")
    expect_refused(safetensors_save(list(a = 1), path), "path")
  }
})

# A child, since what waits for a FIFO's other end can't be interrupted.
test_that("FIFOs and devices are refused at once, and stay what they are", {
  skip_on_cran()
  skip_if_not_installed("jsonlite")
  skip_if_not(nzchar(Sys.which("mkfifo")) && file.exists("/dev/null"))
  folder <- tempfile()
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  system2("mkfifo", shQuote(file.path(folder, "fifo")))
  file.symlink("/dev/null", file.path(folder, "device")) # never /dev/null itself
  child <- child_command(c(
    "setwd(commandArgs(TRUE))",
    "for (path in c('fifo', 'device')) {",
    "  for (code in expression(safetensors_load(path), safetensors_save(list(a = 1), path))) {",
    "    cat(tryCatch({ eval(code); 'no error' }, error = conditionMessage), '\\n', sep = '')",
    "  }",
    "}",
    "cat(system2('test', c('-p', 'fifo')), Sys.readlink('device'))"
  ), folder)
  said <- suppressWarnings(system(child, intern = TRUE, timeout = 30))
  expect_identical(as.vector(said), c(
    "path 'fifo' can't be read: it is no regular file",
    "path 'fifo' can't be written: it is no regular file",
    "path 'device' can't be read: it is no regular file",
    "path 'device' can't be written: it is no regular file",
    "0 /dev/null"
  ))
  expect_identical(dir(folder), c("device", "fifo"))
})

test_that("files are found by their names alone", {
  skip_if_not_installed("jsonlite")
  folder <- tempfile()
  dir.create(folder)
  before <- setwd(folder)
  on.exit({
    setwd(before)
    unlink(folder, recursive = TRUE)
  })
  safetensors_save(list(a = 7), "stdin") # to file() the standard input
  expect_identical(as_array(safetensors_load("stdin")$a), 7)
  writeLines("{}", "{x") # what a JSON reader may take a broken text for
  expect_bad("{x", 0, "JSON")
  other <- sprintf("x1.%d.tmp", Sys.getpid())
  file.create(other)
  safetensors_save(list(a = 7), "x[1]") # to unlink() a pattern
  expect_true(file.exists(other))
  file.symlink("stdin", "link")
  expect_identical(as_array(safetensors_load("link")$a), 7)
})

test_that("loading takes little more memory than the tensors have", {
  skip_on_cran()
  skip_if_not_installed("jsonlite")
  path <- tempfile()
  on.exit(unlink(path))
  count <- 1e6
  safetensors_save(list(a = torch_zeros(2 * count), b = numeric(count)), path)
  safetensors_load(path) # loads what has to be loaded
  invisible(gc(reset = TRUE))
  before <- sum(gc()[, 6])
  back <- safetensors_load(path)
  expect_lt((sum(gc()[, 6]) - before) * 2^20, 2 * file.size(path))
  expect_identical(names(back), c("a", "b"))
})

test_that("tensors may lie in any order", {
  skip_if_not_installed("jsonlite")
  path <- raw_file(header_of(entry("last", "F32", "1", 16, 20), entry("none", "F32", "0", 8, 8),
                             entry("first", "F64", "1", 0, 8), entry("second", "F64", "1", 8, 16)))
  on.exit(unlink(path))
  file <- file(path, "ab")
  writeBin(c(1.5, -2.5), file, endian = "little")
  writeBin(3.5, file, 4, endian = "little")
  close(file)
  expect_identical(lapply(safetensors_load(path), as_array)[1:4],
                   list(last = 3.5, none = numeric(), first = 1.5, second = -2.5))
})

test_that("numbers are written in full", {
  skip_if_not_installed("jsonlite")
  path <- tempfile()
  on.exit(unlink(path))
  m <- nn_conv_transpose3d(1, 1, 1, stride = c(1e5, 1, 1), bias = FALSE)
  safetensors_save(m, path)
  expect_identical(attr(safetensors_load(path), "metadata")[["stride"]], "100000,1,1")
  expect_bad("{}", 0, "header would be 100000 bytes", size = 1e5)
})

test_that("the old file is kept when a new one can't be written", {
  folder <- tempfile()
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  path <- file.path(folder, "kept.safetensors")
  safetensors_save(list(a = 1), path)
  before <- bytes_in(path)
  for (bad in list(list(1), list(a = "text"), list(a = 1, a = 2), list(`__metadata__` = 1), 1, NULL,
                   list(a = NULL), stats::setNames(list(1), NA))) {
    expect_refused(safetensors_save(bad, path))
    expect_identical(bytes_in(path), before)
  }
  for (bad in list("a", c(a = 1), list(a = "b"), c("x", a = "b"), c(a = NA))) {
    expect_refused(safetensors_save(list(a = 1), path, metadata = bad), "metadata")
    expect_identical(bytes_in(path), before)
  }
  expect_identical(dir(folder, all.files = TRUE, no.. = TRUE), basename(path))
  safetensors_save(list(a = 2), path)
  expect_false(identical(bytes_in(path), before))
})

test_that("a full disk leaves the old file", {
  skip_on_cran()
  skip_if_not(file.exists("/dev/full") && nzchar(Sys.which("sh")))
  folder <- tempfile()
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  path <- file.path(folder, "kept.safetensors")
  safetensors_save(list(a = 1), path)
  before <- bytes_in(path)
  # A limit on the size of files is a disk that is full for large ones.
  child <- c("safetensors_save(list(a = numeric(1e6)), commandArgs(TRUE)[1])", "cat('saved')")
  said <- run_child(child, path, before = "ulimit -f 100; trap '' XFSZ;")
  expect_identical(bytes_in(path), before)
  expect_false(any(grepl("saved", said)))
  expect_match(paste(said, collapse = " "), "kept.safetensors' can't be written", fixed = TRUE)
  expect_identical(dir(folder, all.files = TRUE, no.. = TRUE), basename(path))
})
