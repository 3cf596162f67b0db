# Every wrong argument is an R error that names it, its value and what would be legal.

cube <- function(...) array(1, c(...))
x <- cube(1, 2, 3, 3, 3)
w <- cube(2, 3, 3, 3, 3)
layer <- function(...) {
  given <- utils::modifyList(list(in_channels = 4, out_channels = 4, kernel_size = 3), list(...),
                             keep.null = TRUE)
  do.call(nn_conv_transpose3d, given)
}
call <- function(...) {
  do.call(nnf_conv_transpose3d, utils::modifyList(list(x, w), list(...), keep.null = TRUE))
}

# What no integer argument may be, whatever its range.
never_whole <- list(
  missing = NA, missing_number = NA_real_, missing_integer = NA_integer_, not_a_number = NaN,
  infinite = Inf, negative_infinite = -Inf, fraction = 2.5, text = "2", huge = 1e10,
  beyond_int = 2^31, negative_huge = -2^40, beyond_int64 = 2^63, nothing = NULL, a_list = list(2),
  a_factor = factor(2), logical = TRUE, empty = integer(), complex = 2i,
  date = as.Date("2020-02-02"), classed = structure(2, class = "integer64"),
  a_function = sum, a_tensor = torch_tensor(2), named_pair = c(a = 1, b = 2), raw = as.raw(2),
  a_frame = data.frame(a = 2)
)
triples <- list(fraction = c(1, 2.5, 1), missing = c(1, NA, 1), huge = c(1, 1, 2^31),
                infinite = c(Inf, 1, 1), text = c("1", "1", "1"), four = c(1, 1, 1, 1),
                named_two = c(D = 1, H = 1), a_list = list(1, 1, 1), logical = c(TRUE, TRUE, TRUE))

smallest <- c(in_channels = 1, out_channels = 1, groups = 1, kernel_size = 1, stride = 1,
              dilation = 1, padding = 0, output_padding = 0)

test_that("what is no whole number is refused for every integer argument", {
  for (name in names(smallest)) {
    for (case in names(never_whole)) {
      arguments <- stats::setNames(never_whole[case], name)
      text <- expect_refused(do.call(layer, arguments), name)
      expect_false(is.null(text), label = paste(name, case))
      expect_lt(nchar(text), 200)
    }
    below <- stats::setNames(list(smallest[[name]] - 1), name)
    expect_refused(do.call(layer, below), name, "must be a whole number from", smallest[[name]])
  }
})

test_that("the three axes are checked one by one, and counted", {
  for (name in c("kernel_size", "stride", "dilation", "padding", "output_padding")) {
    for (case in triples) expect_refused(do.call(layer, stats::setNames(list(case), name)), name)
    for (count in c(2, 4, 5, 7)) {
      expect_refused(do.call(layer, stats::setNames(list(rep(1, count)), name)), name,
                     paste("has", count, "values"), "depth, height, width")
    }
    for (axis in 1:3) {
      value <- replace(c(1, 1, 1), axis, smallest[[name]] - 1)
      expect_refused(do.call(layer, stats::setNames(list(value), name)), name,
                     paste("on the", c("depth", "height", "width")[axis], "axis"),
                     smallest[[name]] - 1)
    }
  }
  for (name in c("in_channels", "out_channels", "groups")) {
    expect_refused(do.call(layer, stats::setNames(list(c(2, 2, 2)), name)), name, "has 3 values")
  }
  for (axis in 1:3) {
    for (side in 1:2) {
      text <- paste0("padding (", c("before", "after")[side], ") is -1 on the ",
                     c("depth", "height", "width")[axis], " axis")
      expect_refused(layer(padding = replace(double(6), 2 * axis - 2 + side, -1)), text,
                     "must be a whole number from 0")
    }
  }
})

test_that("messages have the range, and numbers in full", {
  expect_refused(layer(stride = NA), "stride is NA", "whole number from 1 to 2147483647")
  expect_refused(layer(padding = "a"), "padding is \"a\"", "whole number from 0 to 2147483647")
  expect_refused(torch_set_num_threads(TRUE), "num_threads is TRUE", "from 0 to 1024")
  expect_refused(layer(stride = -100000), "stride is -100000, but")
  expect_refused(torch_set_num_threads(1e5), "num_threads is 100000,")
  expect_refused(layer(stride = 3e9), "stride is 3000000000, but")
  expect_refused(layer(bias = c(1e5, 2.5, 1e300)), "bias is 100000, 2.5, 1e+300,")
  expect_refused(optim_adam(torch_ones(1), eps = -1e-8), "eps is -1e-08, ")
  expect_refused(layer(padding_mode = c("zeros", "reflect")), "padding_mode has 2 values",
                 "one of \"zeros\"")
})

test_that("the function checks its arguments as the layer does", {
  for (name in c("stride", "padding", "output_padding", "groups", "dilation")) {
    for (case in never_whole) {
      expect_refused(do.call(call, stats::setNames(list(case), name)), name)
    }
  }
  order <- c("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
  expect_identical(names(formals(nnf_conv_transpose3d))[1:8], order)
})

test_that("output_size is a whole number for each axis, within the legal range", {
  m <- nn_conv_transpose3d(2, 3, 3, stride = 2)
  for (case in setdiff(names(never_whole), "nothing")) {
    expect_refused(m(x, output_size = never_whole[[case]]), "output_size")
    expect_refused(call(output_size = never_whole[[case]]), "output_size")
  }
  for (case in triples) expect_refused(m(x, output_size = case), "output_size")
  expect_identical(m(x, output_size = NULL), m(x))
  expect_refused(m(x, output_size = 8), "output_size has 1 values", "3 or 5")
  expect_refused(m(x, output_size = c(7, 7, 7, 7)), "output_size has 4 values")
  for (axis in 1:3) {
    for (size in c(6, 9)) {
      expect_refused(m(x, output_size = replace(c(7, 8, 7), axis, size)), "output_size",
                     c("depth", "height", "width")[axis], size, "7 to 8")
    }
  }
  expect_refused(m(cube(2, 3, 3, 3), output_size = c(1, 2, 7, 7, 7)), "output_size", "5 values")
})

test_that("output_size may be the whole shape, in torch's layout", {
  m <- nn_conv_transpose3d(2, 3, 3, stride = 2)
  for (input in list(x, float32(x))) {
    expect_identical(dim(m(input, output_size = c(1, 3, 7, 8, 7))), c(1L, 3L, 7L, 8L, 7L))
  }
  none <- cube(0, 2, 3, 3, 3)
  expect_identical(dim(m(none, output_size = c(0, 3, 7, 8, 7))), c(0L, 3L, 7L, 8L, 7L))
  expect_identical(dim(m(cube(2, 3, 3, 3), output_size = c(3, 7, 8, 7))), c(3L, 7L, 8L, 7L))
  for (axis in 1:3) {
    size <- replace(c(0, 3, 7, 7, 7), axis + 2, 0)
    expect_refused(m(none, output_size = size), "output_size is 0 on the",
                   c("depth", "height", "width")[axis], "from 1 to")
  }
  expect_refused(m(x, output_size = c(-1, 3, 7, 7, 7)), "output_size is -1, ", "from 0 to")
  expect_refused(m(x, output_size = c(1, 0, 7, 7, 7)), "output_size is 0, ", "from 1 to")
  expect_refused(m(x[1, , , , ], output_size = c(0, 7, 7, 7)), "output_size is 0, ", "from 1 to")
})

test_that("output_size is three sizes, D first, in native layout", {
  m <- nn_conv_transpose3d(2, 3, 3, stride = 2)
  native <- aperm(x)
  expect_identical(dim(m(native, output_size = c(7, 8, 7), layout = "native")),
                   c(7L, 8L, 7L, 3L, 1L))
  for (size in list(c(8, 7, 7, 3, 1), c(1, 3, 7, 7, 8), c(3, 7, 7, 8))) {
    expect_refused(wanted_size(size, length(size), "native"),
                   paste("output_size has", length(size), "values, but must have 3"))
  }
})

test_that("output_padding is below the larger of stride and dilation", {
  for (axis in 1:3) {
    one <- function(value, rest) replace(rep(rest, 3), axis, value)
    expect_refused(layer(stride = 2, output_padding = one(2, 0)), "output_padding is 2",
                   c("depth", "height", "width")[axis], "0 to 1")
    layer(stride = one(2, 1), dilation = 1, output_padding = one(1, 0))
    layer(stride = 1, dilation = one(3, 1), output_padding = one(2, 0))
    expect_refused(layer(dilation = one(3, 1), output_padding = one(3, 0)), "output_padding is 3")
  }
  expect_refused(nnf_conv_transpose3d(cube(0, 2, 3, 3, 3), w, stride = 2, output_padding = 2),
                 "output_padding is 2")
})

test_that("flags, strings and groups", {
  for (value in list(NA, NULL, 1, "TRUE", c(TRUE, TRUE), logical(), list(TRUE), factor(TRUE))) {
    expect_refused(layer(bias = value), "bias", "TRUE or FALSE")
  }
  for (value in list("foo", NA, NULL, 1, c("zeros", "reflect"), "Zeros", "", factor("zeros"),
                     NA_character_, list("zeros"))) {
    expect_refused(layer(padding_mode = value), "padding_mode", "zeros", "reflect", "replicate",
                   "circular")
    expect_refused(call(padding_mode = value), "padding_mode", "circular")
  }
  for (value in list("foo", NA, NULL, 1, c("torch", "native"))) {
    expect_refused(call(layout = value), "layout", "torch", "native")
  }
  expect_refused(layer(groups = 3), "in_channels is 4", "divisible by groups", "3")
  expect_refused(layer(out_channels = 6, groups = 4), "out_channels is 6", "divisible by groups")
})

test_that("inputs of wrong kind, rank, channels or size", {
  m <- nn_conv_transpose3d(2, 3, 3)
  for (value in list(NULL, "a", list(x), factor(1), sum, 1i * x, as.Date("2020-02-02"),
                     data.frame(a = 1), as.raw(1))) {
    expect_refused(m(value), "input", "numeric array or a tensor")
    expect_refused(nnf_conv_transpose3d(value, w), "input", "numeric array or a tensor")
  }
  expect_refused(m(), "input")
  for (rank in c(1:3, 6)) {
    expect_refused(m(array(1, rep(2, rank))), paste("input has", rank), "N, C, D, H, W")
    expect_refused(nnf_conv_transpose3d(array(1, rep(2, rank)), w), paste("input has", rank))
  }
  for (rank in 0:3) {
    expect_refused(m(torch_ones(rep(2, rank))), paste("input has", rank))
  }
  expect_refused(m(cube(2, 2, 2)), "axis of channels")
  expect_refused(m(cube(2, 2, 2), layout = "native"), "W, H, D, C")
  expect_refused(m(torch_ones(1, 2, 3, 3, 3), layout = "native"), "layout")
  expect_refused(m(cube(1, 3, 3, 3, 3)), "input has size 3", "channels", "2")
  expect_refused(m(cube(1, 0, 3, 3, 3)), "input has size 0", "channels")
  for (axis in 1:3) {
    size <- replace(c(3, 3, 3), axis, 0)
    expect_refused(m(cube(1, 2, size)), "input_size is 0", c("depth", "height", "width")[axis])
  }
})

test_that("weights and biases that don't fit", {
  for (value in list(NULL, "a", list(w), sum, 1i * w)) {
    expect_refused(nnf_conv_transpose3d(x, value), "weight", "numeric array or a tensor")
  }
  for (rank in c(1:4, 6)) {
    expect_refused(nnf_conv_transpose3d(x, array(1, rep(2, rank))), "weight has", rank, "5")
  }
  conv <- aperm(w, c(2, 1, 3, 4, 5))
  expect_refused(nnf_conv_transpose3d(x, conv), "weight", "Conv3d", "in_channels first")
  expect_refused(nnf_conv_transpose3d(aperm(x), aperm(conv), layout = "native"), "Conv3d")
  expect_refused(nnf_conv_transpose3d(float32(x), float32(conv)), "Conv3d")
  expect_refused(nnf_conv_transpose3d(cube(1, 4, 3, 3, 3), cube(6, 2, 2, 2, 2), groups = 2),
                 "Conv3d")
  expect_refused(nnf_conv_transpose3d(x, cube(5, 3, 3, 3, 3)), "input", "channels", "5")
  for (length in c(0, 1, 2, 4)) {
    expect_refused(nnf_conv_transpose3d(x, w, rep(1, length)), paste("bias has size", length), "3")
    expect_refused(nnf_conv_transpose3d(float32(x), w, torch_ones(length)), "bias has size")
  }
  groups <- cube(2, 2, 3, 3, 3)
  expect_refused(nnf_conv_transpose3d(x, groups, c(1, 1), groups = 2), "bias has size 2", "4")
  expect_refused(nnf_conv_transpose3d(x, w, matrix(1, 1, 3)), "bias has 2 axes")
  expect_refused(nnf_conv_transpose3d(x, w, "b"), "bias is \"b\"")
  expect_refused(nnf_conv_transpose3d(x, cube(2, 3, 0, 3, 3)), "kernel_size is 0", "depth")
  expect_refused(nnf_conv_transpose3d(x, cube(2, 0, 3, 3, 3)), "out_channels is 0")
  expect_refused(nnf_conv_transpose3d(cube(1, 0, 3, 3, 3), cube(0, 3, 3, 3, 3)), "in_channels is 0")
  expect_identical(nnf_conv_transpose3d(x, w, NULL), nnf_conv_transpose3d(x, w, c(0, 0, 0)))
})

test_that("weights of a module keep their shape", {
  m <- nn_conv_transpose3d(2, 3, 3)
  before <- as_array(m$weight)
  for (value in list(1, cube(3, 2, 3, 3, 3), cube(2, 3, 3, 3, 2), cube(2, 3, 3, 3))) {
    expect_refused(m$weight <- value, "weight has shape", "(2, 3, 3, 3, 3)")
  }
  expect_refused(m$weight <- "a", "weight", "numeric array")
  expect_refused(m$bias <- c(1, 2), "bias has shape (2)", "(3)")
  expect_refused(m$stride <- 2, "stride")
  expect_identical(as_array(m$weight), before)
})

test_that("tensors of two dtypes don't mix", {
  m <- nn_conv_transpose3d(2, 3, 3)
  expect_refused(m(float64(x)), "input", "float64", "weight", "float32")
  expect_refused(nnf_conv_transpose3d(float32(x), float64(w)), "weight", "float64")
  expect_refused(nnf_conv_transpose3d(float32(x), float32(w), float64(1:3)), "bias", "float64")
  expect_refused(float32(1) + float64(1), "float32", "float64")
  expect_refused(m$backward(float32(x), torch_ones(1, 3, 5, 5, 5, dtype = torch_double())),
                 "grad_output", "float")
  expect_refused(m$backward(float32(x), cube(1, 3, 5, 5, 5)), "grad_output", "tensor")
  expect_refused(m$backward(x, torch_ones(1, 3, 5, 5, 5)), "grad_output", "array")
})

test_that("an out that doesn't fit is left as it is", {
  m <- nn_conv_transpose3d(2, 3, 3)
  for (shape in list(c(1, 3, 5, 5, 4), c(1, 3, 5, 5, 6), c(1, 5, 3, 5, 5), c(3, 5, 5, 5), 375)) {
    out <- array(7, shape)
    expect_refused(m(x, out = out), "out has shape", "(1, 3, 5, 5, 5)")
    expect_true(all(out == 7))
    expect_refused(m(float32(x), out = float32(out)), "out has shape")
  }
  expect_refused(m(x, out = array(7L, c(1, 3, 5, 5, 5))), "out is integer")
  expect_refused(m(x, out = "a"), "out is character")
  expect_refused(m(x, out = torch_ones(1, 3, 5, 5, 5)), "out must be an array")
  expect_refused(m(float32(x), out = cube(1, 3, 5, 5, 5)), "out must be a tensor")
  expect_refused(m(float32(x), out = torch_ones(1, 3, 5, 5, 5, dtype = torch_double())),
                 "out is of dtype float64")
})

test_that("an out that overlaps an operand is refused", {
  same <- cube(1, 2, 2, 2, 2)
  kernel <- cube(2, 2, 1, 1, 1)
  alias <- same
  expect_refused(nnf_conv_transpose3d(same, kernel, out = same), "out", "overlaps input")
  expect_refused(nnf_conv_transpose3d(same, kernel, out = alias), "out", "overlaps input")
  tensor <- float32(same)
  expect_refused(nnf_conv_transpose3d(tensor, kernel, out = tensor), "out is the input itself")
  square <- cube(2, 2, 1, 1, 1)
  expect_refused(nnf_conv_transpose3d(cube(2, 2, 1, 1, 1), square, out = square),
                 "overlaps weight")
  expect_true(all(same == 1), all(square == 1))
})

test_that("shapes of grad_output are checked, and nothing is added then", {
  m <- nn_conv_transpose3d(2, 3, 3, stride = 2)
  expect_refused(m$backward(x, cube(1, 2, 7, 7, 7)), "grad_output", "channels", "3")
  expect_refused(m$backward(x, cube(2, 3, 7, 7, 7)), "grad_output", "batch", "1")
  for (axis in 1:3) {
    size <- replace(c(7, 7, 7), axis, 9)
    expect_refused(m$backward(x, cube(1, 3, size)), "grad_output", "7 to 8",
                   c("depth", "height", "width")[axis])
  }
  expect_refused(m$backward(x, cube(3, 7, 7)), "grad_output has 3 axes")
  expect_refused(m$backward(x, cube(3, 7, 7, 7)), "grad_output has 4 axes", "must have 5")
  expect_refused(m$backward(float32(x), float32(cube(3, 7, 7, 7))), "grad_output has 4 axes")
  expect_refused(m$backward(cube(2, 3, 3, 3), cube(1, 3, 7, 7, 7)), "grad_output has 5 axes",
                 "must have 4")
  expect_refused(m$backward(x), "grad_output")
  expect_null(m$weight$grad)
  expect_null(m$bias$grad)
})

test_that("sizes of nothing, and beyond memory", {
  expect_refused(nnf_conv_transpose3d(x, cube(2, 3, 1, 1, 1), padding = c(0, 2, 0)),
                 "output size on the height axis", "(3 - 1)*1 - 2 - 2 + 1*(1 - 1) + 0 + 1 = -1",
                 "at least 1")
  most <- .Machine$integer.max
  expect_refused(call(stride = most), "output", "bytes")
  expect_refused(call(stride = c(1, most, most)), "output", "bytes")
  one <- cube(1, 2, 1, 1, 1)
  expect_identical(nnf_conv_transpose3d(one, w, stride = most), nnf_conv_transpose3d(one, w))
  dot <- cube(2, 3, 1, 1, 1)
  expect_identical(nnf_conv_transpose3d(x, dot, dilation = most), nnf_conv_transpose3d(x, dot))
})

test_that("reflect and circular limit the padding, side by side", {
  expect_refused(call(padding = 2, padding_mode = "reflect"), "padding is 2", "reflect",
                 "at most 0", "depth")
  expect_refused(nnf_conv_transpose3d(x, cube(2, 3, 4, 4, 4), padding = c(0, 0, 0, 0, 0, 4),
                                      padding_mode = "circular"),
                 "padding is 4", "circular", "at most 2", "width")
  expect_identical(dim(nnf_conv_transpose3d(x, cube(2, 3, 4, 4, 4), padding = c(0, 0, 0, 0, 0, 3),
                                            padding_mode = "circular")), c(1L, 3L, 6L, 6L, 3L))
})

test_that("sizes, seeds and threads", {
  for (make in list(torch_zeros, torch_ones, torch_randn)) {
    for (case in setdiff(names(never_whole), c("empty", "named_pair"))) {
      expect_refused(make(never_whole[[case]]), "size")
    }
    expect_refused(make(2, TRUE), "size is TRUE")
    expect_refused(make(-1), "size is -1")
    expect_refused(make(1, 1, 1, 1, 1, 1), "size has 6 values", "at most 5")
  }
  for (case in setdiff(names(never_whole), c("huge", "beyond_int", "negative_huge"))) {
    expect_refused(torch_manual_seed(never_whole[[case]]), "seed")
  }
  for (case in never_whole) expect_refused(torch_set_num_threads(case), "num_threads")
  expect_refused(torch_set_num_threads(-1), "num_threads is -1")
  expect_refused(torch_set_num_threads(1025), "num_threads is 1025", "0 to 1024")
})

test_that("native arrays take three sizes as output_size, in the order D, H, W", {
  m <- nn_conv_transpose3d(3, 1, 2, stride = 2)
  x <- cube(3, 3, 3, 3, 1)
  expect_identical(dim(m(x, layout = "native", output_size = c(6, 7, 6))), c(6L, 7L, 6L, 1L, 1L))
  expect_refused(m(x, layout = "native", output_size = c(6, 7, 6, 1, 1)),
                 "output_size has 5 values", "3 (depth, height, width)")
})
