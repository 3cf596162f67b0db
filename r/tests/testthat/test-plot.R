# What plot() and summary() count, and that plot() draws and tidies up.

# Taps that meet in each output of one axis, by the definition, without padding modes.
count_taps <- function(size, kernel, stride = 1, padding = 0, output_padding = 0, dilation = 1) {
  places <- outer((seq_len(size) - 1) * stride, (seq_len(kernel) - 1) * dilation, "+")
  full <- max(places) + 1 + output_padding
  tabulate(places + 1, full)[seq(padding + 1, full - padding)]
}

layer_of <- function(...) attr(nn_conv_transpose3d(1, 1, ...), "self")$layer
drawn <- function(...) {
  grDevices::pdf(NULL, width = 9, height = 5)
  on.exit(grDevices::dev.off())
  before <- graphics::par(no.readonly = TRUE)
  result <- withVisible(plot(...))
  expect_false(result$visible)
  expect_identical(graphics::par(no.readonly = TRUE), before)
  result$value
}

test_that("taps on an axis are those of the definition", {
  for (a in 1:3) {
    for (stride in 1:4) {
      layer <- layer_of(5, stride = stride, padding = 1, output_padding = stride - 1)
      expect_identical(as.integer(along(layer, a, rep(1, 6))),
                       count_taps(6, 5, stride, 1, stride - 1))
    }
    layer <- layer_of(3, stride = 2, dilation = 3)
    expect_identical(as.integer(along(layer, a, rep(1, 7))), count_taps(7, 3, 2, dilation = 3))
  }
  unlike <- layer_of(c(2, 3, 4), stride = c(1, 2, 3), padding = c(0, 1, 0, 2, 1, 0))
  expect_identical(along(unlike, 1, rep(1, 3)), c(1, 2, 2)) # one less behind
  expect_identical(along(unlike, 2, rep(1, 3)), c(1, 1, 2, 1, 2)) # two less behind
  expect_identical(along(unlike, 3, rep(1, 3)), c(1, 1, 2, 1, 1, 2, 1, 1, 1)) # one before
})

test_that("the inside of an axis repeats what the phases of the stride have", {
  for (kernel in 1:7) {
    for (stride in 1:4) {
      for (dilation in 1:3) {
        layer <- layer_of(kernel, stride = stride, dilation = dilation)
        counts <- count_taps(60, kernel, stride, dilation = dilation)
        middle <- counts[length(counts) %/% 2 + 0:(stride - 1)]
        expect_identical(unname(inner_taps(layer)[2, ]), as.double(range(middle)))
      }
    }
  }
})

test_that("titles tell even from uneven", {
  expect_identical(overlap_title(inner_taps(layer_of(4, stride = 2))), "Overlaps even")
  expect_identical(overlap_title(inner_taps(layer_of(3, stride = 2))),
                   "Overlaps uneven: 1 to 8 taps")
  expect_identical(overlap_title(inner_taps(layer_of(c(3, 4, 2), stride = c(2, 2, 1)))),
                   "Overlaps uneven: 4 to 8 taps")
  expect_identical(overlap_title(inner_taps(layer_of(1, stride = 2))),
                   "Overlaps uneven: 0 to 1 taps")
})

test_that("maps are products of the axes, in the plane that shows most", {
  maps <- layer_maps(layer_of(3, stride = 2))
  counts <- count_taps(4, 3, 2)
  expect_equal(maps$overlap, 2 * outer(counts, counts))
  expect_identical(maps$where, "depth 5 of 9")
  expect_identical(axes[maps$plane], c("width", "height"))
  expect_equal(maps$footprint, outer(c(0, 0, 1, 1, 1, 0, 0, 0, 0), c(0, 0, 1, 1, 1, 0, 0, 0, 0)))
  expect_identical(maps$reach, c(3, 3, 3))
  deep <- layer_maps(layer_of(c(3, 5, 2), stride = c(2, 1, 1)))
  expect_identical(axes[deep$plane], c("width", "depth"))
  expect_identical(range(deep$overlap[3:4, ]), c(10, 20))
  folded <- layer_maps(layer_of(4, stride = 2, padding = 1, padding_mode = "replicate"))
  expect_true(all(folded$overlap == 8))
  for (mode in c("reflect", "circular")) { # needs an input that is large enough
    expect_silent(layer_maps(layer_of(2, padding = 9, padding_mode = mode)))
  }
})

test_that("plot() draws layers and slices, and puts par() back", {
  m <- nn_conv_transpose3d(2, 3, 4, stride = 2, padding = 1)
  expect_identical(drawn(m), m)
  torch_manual_seed(1)
  x <- torch_randn(2, 2, 3, 4, 5)
  expect_identical(drawn(m, x), m)
  drawn(m, as_array(x), family = "serif", cex = 0.5)
  drawn(m, aperm(as_array(x))[, , , , 1], layout = "native")
  drawn(m, torch_zeros(0, 2, 3, 4, 5))
  drawn(nn_conv_transpose3d(1, 1, 1), array(c(NA, Inf, 3), c(1, 1, 3, 1)))
  drawn(nn_conv_transpose3d(1, 1, 40, stride = 9)) # numbers in a key
  expect_null(m$weight$grad)
})

# The texts of a picture, and how many rectangles it has.
picture <- function(m) {
  path <- tempfile(fileext = ".pdf")
  on.exit(unlink(path))
  grDevices::pdf(path, width = 9, height = 5, compress = FALSE, useKerning = FALSE)
  tryCatch(plot(m), finally = grDevices::dev.off())
  lines <- readLines(path, warn = FALSE)
  texts <- regmatches(lines, regexpr("\\(.*\\) Tj", lines, useBytes = TRUE))
  list(texts = sub("^\\((.*)\\) Tj$", "\\1", texts),
       count = sum(grepl(" re( |$)", lines, useBytes = TRUE)))
}

test_that("large maps are drawn in cells of several outputs", {
  maps <- layer_maps(layer_of(3, stride = 2, dilation = 600))
  expect_identical(maps$each, 13) # 2405 outputs
  expect_identical(dim(maps$overlap), c(185L, 185L))
  counts <- count_taps(603, 3, 2, dilation = 600)
  expect_identical(length(counts), 2405L)
  largest <- vapply(split(counts, (seq_along(counts) - 1) %/% 13), max, 0L)
  expect_equal(maps$overlap, 3 * outer(unname(largest), unname(largest)))
  expect_identical(sum(maps$footprint), 9)
  expect_identical(maps$reach, c(3, 3, 3))
  holes <- layer_maps(layer_of(2, stride = 20000))
  expect_lte(max(dim(holes$overlap), dim(holes$footprint)), 200)
  expect_identical(holes$where, "depth 20002 of 60002")
  expect_identical(layer_maps(layer_of(8, stride = 38))$each, 1) # 198 outputs
  expect_identical(coarse(c(1, 5, 2, 0, 7), 2), c(5, 2, 7))

  shown <- picture(nn_conv_transpose3d(1, 1, 3, stride = 2, dilation = 600))
  expect_lt(shown$count, 2 * 200^2 + 100)
  expect_true("one input reaches 3 x 3 x 3, a cell is 13 x 13 outputs" %in% shown$texts)
  expect_true("most taps in 13 x 13 outputs, depth 1203 of 2405" %in% shown$texts)
  expect_true(all(c("1", "500", "2000") %in% shown$texts)) # outputs, not cells
  expect_true("taps per output, depth 5 of 9" %in% picture(nn_conv_transpose3d(1, 1, 3, 2))$texts)
})

test_that("what is too large to be counted is refused at once", {
  m <- nn_conv_transpose3d(1, 1, 2, stride = c(1, 2e9, 1))
  devices <- grDevices::dev.list()
  expect_refused(plot(m), "stride 2000000000 and dilation 1 on the height axis", "10000000")
  expect_refused(summary(m, c(4, 4, 4)), "height axis", "4 inputs over 6000000002 outputs")
  wide <- nn_conv_transpose3d(1, 1, 2, dilation = c(1, 1, 2e9))
  expect_refused(plot(wide), "dilation 2000000000 on the width axis")
  expect_identical(grDevices::dev.list(), devices)
})

test_that("summary() counts taps in no time and memory", {
  invisible(gc(reset = TRUE))
  before <- sum(gc()[, 6])
  expect_equal(unname(summary(nn_conv_transpose3d(1, 1, 2, stride = 1e8))$taps),
               rbind(c(0, 1), c(0, 1), c(0, 1)))
  expect_lt(sum(gc()[, 6]) - before, 50) # MB
  expect_equal(unname(inner_taps(layer_of(6, stride = 4, dilation = c(1, 2, 4)))),
               rbind(c(1, 2), c(0, 3), c(0, 6)))
})

test_that("numbers of taps and voxels are written in full", {
  expect_identical(overlap_title(rbind(c(1, 1), c(1, 1), c(0, 1e5))),
                   "Overlaps uneven: 0 to 100000 taps")
  even <- nn_conv_transpose3d(1, 1, c(10, 100, 100), bias = FALSE)
  expect_output(print(summary(even)),
                "overlaps even: 100000 taps (depth 10, height 100, width 100)", fixed = TRUE)
  wide <- nn_conv_transpose3d(1, 1, c(1, 1, 1e5), stride = c(1, 1, 1e5))
  texts <- picture(wide)$texts
  expect_match(texts, "^one input reaches 1 x 1 x 100000,", all = FALSE)
  expect_false(any(grepl("e+", texts, fixed = TRUE)))
  expect_refused(summary(nn_conv_transpose3d(1, 1, 1), c(1e5, 1, 1, 1)),
                 "input_size has 100000 channels")
})

test_that("shades of many numbers are few", {
  expect_lte(length(unique(shade(0:1e6, 1e6))), 201)
  expect_identical(shade(c(0, 1e6), 1e6), shade(c(0, 200), 200))
  expect_gt(length(unique(shade(0:200, 200))), 150)
})

test_that("plot() refuses before it opens a device", {
  m <- nn_conv_transpose3d(2, 3, 4)
  devices <- grDevices::dev.list()
  expect_error(plot(m, torch_zeros(1, 3, 2, 2, 2)), "input")
  expect_error(plot(m, layout = "nifti"), "layout is \"nifti\"")
  expect_error(plot(m, torch_zeros(2, 2, 2, 2), layout = "native"), "layout is for arrays")
  expect_identical(grDevices::dev.list(), devices)
})

test_that("slices are the first sample's first channel, in either layout", {
  x <- array(seq_len(2 * 3 * 4 * 5 * 6), c(2, 3, 4, 5, 6))
  expect_equal(volume_of(x, "torch"), aperm(x[1, 1, , , ]))
  expect_equal(volume_of(x[1, , , , ], "torch"), aperm(x[1, 1, , , ]))
  expect_equal(volume_of(aperm(x), "native"), aperm(x[1, 1, , , ]))
  expect_equal(volume_of(torch_tensor(x), "torch"), aperm(x[1, 1, , , ]))
})

test_that("shades reach from the smallest to the largest number", {
  expect_identical(grey_limits(c(3, NA, -2, Inf)), c(-2, 3))
  expect_identical(grey_limits(c(7, 7)), c(6, 8))
  expect_identical(grey_limits(c(NA, Inf)), c(0, 1))
})

test_that("summary() counts parameters, shapes and multiply-adds", {
  m <- nn_conv_transpose3d(4, 6, c(3, 5, 2), stride = c(2, 1, 1), padding = c(0, 4, 2), groups = 2)
  s <- summary(m)
  expect_identical(s$parameters, 4 * 3 * 30 + 6)
  expect_identical(s$shapes, list(weight = c(4L, 3L, 3L, 5L, 2L), bias = 6L))
  expect_equal(unname(s$taps), rbind(c(1, 2), c(5, 5), c(2, 2)))
  expect_null(s$output_shape)
  s <- summary(m, c(7, 4, 5, 6, 7))
  taps <- list(count_taps(5, 3, 2), count_taps(6, 5, 1, 4), count_taps(7, 2, 1, 2))
  expect_identical(s$output_shape, c(7, 6, 11, 2, 4))
  expect_identical(s$multiply_adds, 7 * 4 * 6 / 2 * prod(vapply(taps, sum, 0L)))
  expect_equal(unname(s$overlap), t(vapply(taps, range, c(0L, 0L))))
  expect_identical(summary(m, c(5, 6, 7))$output_shape, c(6, 11, 2, 4))
  expect_identical(summary(m, c(5, 6, 7))$multiply_adds, s$multiply_adds / 7)
  expect_identical(summary(m, c(4, 5, 6, 7))$multiply_adds, s$multiply_adds / 7)
  expect_identical(summary(m, c(0, 4, 5, 6, 7))$multiply_adds, 0)
  folded <- nn_conv_transpose3d(1, 1, 3, padding = 1, padding_mode = "reflect", bias = FALSE)
  expect_identical(summary(folded, c(4, 4, 4))$multiply_adds, (3 * 4)^3) # none is cut off
})

test_that("summary() refuses sizes that make no sense", {
  m <- nn_conv_transpose3d(4, 6, 3, padding = 3)
  expect_error(summary(m, 5), "input_size has 1 values")
  expect_error(summary(m, c(5, NA, 5)), "input_size is NA on the height axis")
  expect_error(summary(m, c(5, 5, 5, 5, 2.5)), "input_size is 2.5")
  expect_error(summary(m, c(3, 5, 5, 5)), "input_size has 3 channels, but in_channels is 4")
  expect_error(summary(m, c(2, 5, 5)), "depth")
})

test_that("print() of a summary says it in lines", {
  m <- nn_conv_transpose3d(16, 33, 3, stride = 2)
  expect_identical(capture.output(print(summary(m, c(10, 50, 100)))), c(
    "nn_conv_transpose3d(16, 33, kernel_size = 3, stride = 2)",
    "  weight: (16, 33, 3, 3, 3)",
    "  bias: (33)",
    "  parameters: 14,289",
    "  input: (16, 10, 50, 100)",
    "  output: (33, 21, 101, 201)",
    "  multiply-adds: 712,800,000",
    "  overlaps uneven: 1 to 8 taps (depth 1 to 2, height 1 to 2, width 1 to 2)",
    "  with the border: depth 1 to 2, height 1 to 2, width 1 to 2"
  ))
  expect_output(print(summary(nn_conv_transpose3d(1, 1, 4, stride = 2, bias = FALSE))),
                "overlaps even: 8 taps (depth 2, height 2, width 2)", fixed = TRUE)
})

test_that("brain is the volume that its help describes", {
  expect_identical(dim(brain), c(48L, 56L, 48L))
  expect_type(brain, "integer")
  expect_identical(range(brain), c(0L, 192L))
})
