# What the R package costs beyond the C call: forward, in one process, in rounds of
# changing order, medians.  The C call allocates a fresh output as well, once as malloc() gives it
# and once asking for huge pages, which the package does.
#
#   make build && R CMD INSTALL r
#   Rscript bench/r_package.R [ROUNDS [LAYER...]]      LAYER: a name in bench/layers.txt
#
# SPDX-License-Identifier: MIT

library(convt3d)

arguments <- commandArgs(TRUE)
rounds <- if (length(arguments)) as.integer(arguments[1]) else 9L
names <- if (length(arguments) > 1) arguments[-1] else "page_k352"

script <- sub("--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
top <- dirname(dirname(normalizePath(script)))
library_path <- file.path(top, "build", "libconvt3d.a")
object <- file.path(tempdir(), paste0("r_baseline", .Platform$dynlib.ext))
file.copy(file.path(top, "bench", "r_baseline.c"), tempdir())
Sys.setenv(PKG_CPPFLAGS = paste0("-DCONVT3D_STATIC -I", file.path(top, "include")),
           PKG_LIBS = paste(library_path, "-lm -pthread"))
stopifnot(system2(file.path(R.home("bin"), "R"),
                  c("CMD", "SHLIB", "-o", object, file.path(tempdir(), "r_baseline.c")),
                  stdout = FALSE) == 0)
dyn.load(object)

# The argument of one field of a problem string: 'k' of "ci16co33k3x5x2s2" is c(3, 5, 2).
field <- function(text, key, default) {
  found <- regmatches(text, regexec(paste0("(?<![a-z])", key, "([0-9]+(?:x[0-9]+)*)"), text,
                                    perl = TRUE))[[1]]
  if (length(found)) as.integer(strsplit(found[2], "x")[[1]]) else default
}

seconds_of <- function(code) {
  gc(FALSE)
  start <- Sys.time()
  value <- force(code)
  as.double(Sys.time() - start, units = "secs")
}

time_layer <- function(name) {
  lines <- readLines(file.path(top, "bench", "layers.txt"))
  text <- sub(":.*", "", grep(paste0("\"", name, "\""), lines, fixed = TRUE, value = TRUE))
  stopifnot(length(text) == 1, !grepl("nb", text))
  m <- nn_conv_transpose3d(field(text, "ci", 1), field(text, "co", 1), field(text, "k", 1),
                           stride = field(text, "s", 1), padding = field(text, "p", 0),
                           output_padding = field(text, "op", 0), groups = field(text, "g", 1),
                           dilation = field(text, "d", 1))
  size <- rep_len(field(text, "i", 1), 3)
  single <- torch_randn(field(text, "n", 1), field(text, "ci", 1), size)
  torch <- as_array(single)
  native <- aperm(torch, 5:1)
  w <- aperm(as_array(m$weight), 5:1)
  b <- as_array(m$bias)
  # Tensors' own memory, as the C call wants it.
  raw <- function(tensor) get("data", tensor)
  weights <- list(raw(m$weight), raw(m$bias))
  kept <- list(native = m(native, layout = "native"), torch = m(torch), single = m(single))

  c_call <- function(f64, huge) {
    gc(FALSE)
    if (f64) .Call("r_baseline", paste0(text, "f64"), native, w, b, huge)
    else .Call("r_baseline", text, raw(single), weights[[1]], weights[[2]], huge)
  }
  ways <- list(
    "C, float64, malloc" = function() c_call(TRUE, FALSE),
    "C, float64, huge pages" = function() c_call(TRUE, TRUE),
    "R, native array" = function() seconds_of(m(native, layout = "native")),
    "R, native array, out =" = function() seconds_of(m(native, layout = "native",
                                                       out = kept$native)),
    "R, torch array" = function() seconds_of(m(torch)),
    "R, torch array, out =" = function() seconds_of(m(torch, out = kept$torch)),
    "C, float32, malloc" = function() c_call(FALSE, FALSE),
    "C, float32, huge pages" = function() c_call(FALSE, TRUE),
    "R, tensor" = function() seconds_of(m(single)),
    "R, tensor, out =" = function() seconds_of(m(single, out = kept$single))
  )
  # In another order each round: memory that one has freed is what the next one gets.
  times <- replicate(rounds, vapply(ways[sample(length(ways))], function(way) way(),
                                    0)[names(ways)])
  medians <- apply(times, 1, stats::median)
  bases <- rep(c("C, float64", "C, float32"), c(6, 4))
  table <- data.frame(ms = round(1e3 * medians, 1),
                      fastest = round(1e3 * apply(times, 1, min), 1),
                      slowest = round(1e3 * apply(times, 1, max), 1),
                      to_malloc = round(medians / medians[paste0(bases, ", malloc")], 3),
                      to_huge_pages = round(medians / medians[paste0(bases, ", huge pages")], 3))
  cat("\n", name, ", ", rounds, " rounds, ", torch_get_num_threads(), " threads\n", sep = "")
  print(table)
}

str(convt3d_info())
for (name in names) time_layer(name)
