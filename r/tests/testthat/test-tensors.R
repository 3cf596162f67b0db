# Tensors: made, read, printed, changed.

numbers <- function(shape) array(seq_len(prod(shape)) - 3.5, shape)

test_that("arrays of every rank go in and come back, in either dtype", {
  shapes <- list(5, c(2, 3), c(2, 3, 4), c(2, 3, 4, 5), c(2, 1, 4, 3, 5), 0, c(0, 3), c(2, 0, 4),
                 c(1, 1, 1, 1, 1), c(40, 1, 1, 1, 37), c(33, 2, 2, 2, 35))
  for (shape in shapes) {
    for (tensor in c(float32, float64)) {
      data <- numbers(shape)
      x <- tensor(data)
      back <- as_array(x)
      expect_identical(c(back), c(data))
      expect_identical(x$shape, as.integer(shape))
      expect_identical(dim(x), as.integer(shape))
      expect_identical(dim(back), if (length(shape) > 1) as.integer(shape))
      expect_identical(c(x$numel(), x$dim(), length(x)), c(prod(shape), length(shape), prod(shape)))
      expect_identical(as.array(x), back)
      expect_identical(as.double(x), as.double(data))
    }
  }
})

test_that("memory is in row-major order", {
  expect_identical(readBin(bytes_of(float32(numbers(c(2, 3)))), "double", 6, 4),
                   c(t(numbers(c(2, 3)))))
  expect_identical(readBin(bytes_of(float64(numbers(c(2, 3, 4)))), "double", 24),
                   c(aperm(numbers(c(2, 3, 4)))))
})

test_that("a tensor of no axes", {
  for (x in list(torch_ones(), torch_sum(torch_ones(1)), torch_zeros() + 1)) {
    expect_identical(x$shape, integer())
    expect_identical(as_array(x), 1)
    expect_identical(x$item(), 1)
    expect_identical(x$dim(), 0L)
  }
})

test_that("data of several kinds", {
  expect_identical(as_array(torch_tensor(1:3)), c(1, 2, 3))
  expect_identical(as_array(torch_tensor(c(TRUE, FALSE))), c(1, 0))
  expect_identical(as_array(torch_tensor(matrix(1:4, 2))), matrix(c(1, 2, 3, 4), 2))
  expect_identical(as_array(torch_tensor(c(NA, NaN, Inf, -Inf)))[3:4], c(Inf, -Inf))
  expect_true(all(is.nan(as_array(torch_tensor(c(NaN, NaN))))))
  expect_identical(as_array(torch_tensor(0.1)), readBin(writeBin(0.1, raw(), 4), "double", 1, 4))
  for (value in list("a", NULL, list(1), factor(1), 1i, sum, as.raw(1))) {
    expect_refused(torch_tensor(value), "data", "numeric array or a tensor")
  }
  expect_refused(torch_tensor(array(1, rep(1, 6))), "6 axes", "5")
  expect_refused(torch_tensor(1, requires_grad = 1), "requires_grad", "TRUE or FALSE")
  for (dtype in list("float", 1, torch_float, NA)) {
    expect_refused(torch_tensor(1, dtype = dtype), "dtype", "torch_float()", "torch_double()")
    expect_refused(torch_zeros(1, dtype = dtype), "dtype")
  }
})

test_that("zeros, ones and random numbers have the shape and dtype that was asked for", {
  for (make in list(torch_zeros, torch_ones, torch_randn)) {
    expect_identical(make(2, 3)$shape, c(2L, 3L))
    expect_identical(make(c(2, 3))$shape, c(2L, 3L))
    expect_identical(make(2, 0, 3)$shape, c(2L, 0L, 3L))
    expect_identical(make(2)$dtype, torch_float())
    expect_identical(make(2, dtype = torch_float64())$dtype, torch_double())
    expect_true(make(2, requires_grad = TRUE)$requires_grad)
    expect_false(make(2)$requires_grad)
  }
  expect_identical(as_array(torch_zeros(2, 2)), matrix(0, 2, 2))
  expect_identical(as_array(torch_ones(3, dtype = torch_double())), c(1, 1, 1))
})

test_that("empty tensors take part in arithmetic", {
  for (dtype in list(torch_float(), torch_double())) {
    x <- torch_zeros(0, 3, dtype = dtype)
    for (y in list(x + 1, 1 - x, x * x, x / 2, -x, x^2, nnf_relu(x))) {
      expect_identical(y$shape, c(0L, 3L))
      expect_identical(as_array(y), matrix(0, 0, 3))
      expect_identical(length(bytes_of(y)), 0L)
    }
    expect_identical(torch_sum(x)$item(), 0)
    expect_identical(torch_mean(x)$item(), NaN)
  }
})

test_that("item, size and dtypes", {
  x <- float32(numbers(c(2, 3)))
  expect_identical(x$size(), c(2L, 3L))
  expect_identical(c(x$size(1), x$size(2)), c(2L, 3L))
  expect_refused(x$size(3), "dim is 3", "1 to 2")
  expect_refused(x$size(0), "dim")
  expect_refused(x$item(), "item()", "6")
  expect_identical(float64(2.5)$item(), 2.5)
  wide <- x$to(torch_double())
  expect_identical(wide$dtype, torch_double())
  expect_identical(as_array(wide), as_array(x))
  expect_identical(x$to(torch_float()), x)
  expect_identical(as_array(float64(0.1)$to(torch_float())), as_array(float32(0.1)))
  expect_refused(x$to("float"), "dtype")
  expect_identical(torch_tensor(x)$dtype, torch_float())
  expect_identical(torch_tensor(wide)$dtype, torch_double())
  expect_identical(torch_tensor(x, dtype = torch_double())$dtype, torch_double())
  expect_identical(format(torch_float()), "torch_Float")
  expect_output(print(torch_double()), "^torch_Double$")
  expect_identical(list(torch_float32(), torch_float64()), list(torch_float(), torch_double()))
})

test_that("a tensor is a reference; copies are not", {
  x <- float32(1:3)
  same <- x
  copy <- torch_tensor(x)
  clone <- x$clone()
  detached <- x$detach()
  expect_identical(x$copy_(c(7, 8, 9)), x)
  expect_identical(as_array(same), c(7, 8, 9))
  expect_identical(as_array(copy), c(1, 2, 3))
  expect_identical(as_array(clone), c(1, 2, 3))
  expect_identical(as_array(detached), c(1, 2, 3))
  x$copy_(float64(4:6))
  expect_identical(x$dtype, torch_float())
  expect_identical(as_array(x), c(4, 5, 6))
  x$zero_()
  expect_identical(as_array(same), c(0, 0, 0))
  expect_refused(x$copy_(1:2), "source has shape (2)", "(3)")
  expect_refused(x$copy_(matrix(1:3, 1)), "source has shape (1, 3)")
  expect_refused(x$copy_("a"), "source")
  expect_identical(as_array(x), c(0, 0, 0))
})

test_that("requires_grad, leaves and grad", {
  x <- float32(1:3)
  expect_identical(c(x$requires_grad, x$is_leaf), c(FALSE, TRUE))
  expect_identical(x$requires_grad_(), x)
  expect_true(x$requires_grad)
  expect_false(x$requires_grad_(FALSE)$requires_grad)
  expect_refused(x$requires_grad_(NA), "requires_grad")
  y <- x$requires_grad_() * 2
  expect_identical(c(y$requires_grad, y$is_leaf), c(TRUE, FALSE))
  expect_refused(y$requires_grad_(FALSE), "leaf")
  expect_false(y$detach()$requires_grad)
  expect_true(y$detach()$is_leaf)
  expect_null(x$grad)
  x$grad <- float32(4:6)
  expect_identical(as_array(x$grad), c(4, 5, 6))
  x$grad <- NULL
  expect_null(x$grad)
  expect_refused(x$grad <- 1:3, "grad", "tensor or NULL")
  expect_refused(x$grad <- float32(1), "grad has shape (1)", "(3)")
  expect_refused(x$shape <- 3, "'shape'", "assigned")
  expect_refused(x$data, "no 'data'")
  expect_refused(x$nothing, "no 'nothing'")
  expect_true(all(c("shape", "grad", "item(") %in% utils::.DollarNames(x, "")))
  expect_identical(utils::.DollarNames(x, "^sha"), "shape")
})

test_that("a saved tensor is read as it was", {
  path <- tempfile()
  on.exit(unlink(path))
  for (x in list(float32(numbers(c(2, 3, 4))), float64(rnorm(5), requires_grad = TRUE))) {
    saveRDS(x, path)
    back <- readRDS(path)
    same_bytes(back, x)
    expect_identical(back$shape, x$shape)
    expect_identical(back$requires_grad, x$requires_grad)
    expect_identical(as_array(back + 1), as_array(x + 1))
  }
})

test_that("a saved tensor can be trained on beside new ones", {
  path <- tempfile()
  on.exit(unlink(path))
  reload <- function(x) {
    saveRDS(x, path)
    readRDS(path)
  }
  x <- float64(c(1, 2), requires_grad = TRUE)
  y <- reload(x)
  y$copy_(c(5, 6))
  torch_sum(x * y)$backward()
  expect_identical(as_array(x$grad), c(5, 6))
  expect_identical(as_array(y$grad), c(1, 2))
  # The leaf gets a number here that the unloaded rest of its graph has from elsewhere.
  middle <- x * 3
  graph <- reload(list(x, middle, torch_sum(middle * x)))
  graph[[1]]$grad <- NULL
  state <- convt3d:::state
  last <- state$last_id
  state$last_id <- get("id", envir = graph[[2]]) - 3 # the product and a snapshot come first
  graph[[1]] * 1
  state$last_id <- last
  expect_identical(get("id", envir = graph[[1]]), get("id", envir = graph[[2]]))
  graph[[3]]$backward()
  expect_identical(as_array(graph[[1]]$grad), 6 * c(1, 2))
  graph <- reload(list(x, x * 3))
  graph[[1]]$grad <- NULL
  torch_sum(graph[[2]] * graph[[1]] * x)$backward()
  expect_identical(as_array(graph[[1]]$grad), 6 * c(1, 2)^2)
})

# ---- Printing -------------------------------------------------------------------------

lines_of <- function(x, ...) utils::capture.output(print(x, ...))

test_that("small tensors print whole", {
  expect_identical(lines_of(torch_tensor(c(1, 2.5))),
                   c("torch_tensor", " 1.0000", " 2.5000", "[ CPUFloatType{2} ]"))
  expect_identical(lines_of(torch_tensor(matrix(1:4, 2))),
                   c("torch_tensor", " 1  3", " 2  4", "[ CPUFloatType{2,2} ]"))
  expect_identical(lines_of(float64(3)), c("torch_tensor", " 3", "[ CPUDoubleType{1} ]"))
  expect_identical(lines_of(torch_ones()), c("torch_tensor", " 1", "[ CPUFloatType{} ]"))
  expect_identical(lines_of(torch_zeros(2, 0)), c("torch_tensor", "[ CPUFloatType{2,0} ]"))
  expect_identical(lines_of(torch_tensor(array(1:8, c(2, 2, 2)))),
                   c("torch_tensor", "(1,.,.) = ", " 1  5", " 3  7", "(2,.,.) = ", " 2  6",
                     " 4  8", "[ CPUFloatType{2,2,2} ]"))
  heads <- grep("=", lines_of(torch_zeros(2, 3, 1, 1)), value = TRUE)
  expect_identical(heads, c("(1,1,.,.) = ", "(1,2,.,.) = ", "(1,3,.,.) = ", "(2,1,.,.) = ",
                            "(2,2,.,.) = ", "(2,3,.,.) = "))
  x <- float32(c(1, NaN, -Inf))
  expect_identical(lines_of(x)[2:4], c("    1", "  NaN", " -Inf"))
})

test_that("large tensors print their first rows, wide ones in parts", {
  text <- lines_of(torch_zeros(100))
  expect_identical(length(text), 33L)
  expect_identical(text[32], "... [the output was truncated (use n=-1 to disable)]")
  expect_identical(length(lines_of(torch_zeros(100), n = -1)), 102L)
  expect_identical(length(lines_of(torch_zeros(100), n = 2)), 5L)
  expect_identical(length(lines_of(torch_zeros(30))), 32L)
  before <- options(width = 20)
  on.exit(options(before))
  text <- lines_of(torch_tensor(matrix(1:20, 1)))
  expect_true(all(nchar(text[text != text[length(text)]]) <= 20))
  expect_identical(text[2], "Columns 1 to 4")
  expect_identical(text[3], "  1   2   3   4")
})

test_that("the last line says what is recorded", {
  x <- float64(1:2, requires_grad = TRUE)
  expect_identical(format(x), "[ CPUDoubleType{2} ][ requires_grad = TRUE ]")
  expect_identical(format(x * 2), "[ CPUDoubleType{2} ][ grad_fn = <*> ]")
  expect_output(str(x), "convt3d_tensor [ CPUDoubleType{2} ]", fixed = TRUE)
  expect_output(expect_invisible(print(x)))
})

test_that("shapes that the data don't have are refused", {
  expect_refused(convt3d:::convert(list(as.raw(1:8), 3, FALSE), "float64", FALSE), "length 2",
                 "3 elements")
  expect_refused(convt3d:::convert(list(c(1, 2), c(2, 2), TRUE), "float32", FALSE), "length 2")
  x <- float32(1:2)
  expect_refused(x[["shape"]] <- 300, "shape")
  expect_identical(x[["shape"]], 2L)
  registerS3method("dim", "boastful", function(x) c(1, 1, 300, 300, 300),
                   envir = asNamespace("base"))
  boastful <- structure(array(1, rep(1, 5)), class = c("boastful", "array"))
  expect_identical(dim(nn_conv_transpose3d(1, 1, 2)(boastful)), c(1L, 1L, 2L, 2L, 2L))
})

test_that("empty tensors with long axes come at once", {
  expect_identical(dim(torch_zeros(0, 1e5, 1e5, 1e5, 1)), as.integer(c(0, 1e5, 1e5, 1e5, 1)))
  expect_refused(torch_zeros(1e9, 1e9), "(1000000000, 1000000000)", "too many")
})

test_that("tensors have no indices, and are compared by their values", {
  x <- float32(1:3)
  expect_refused(x[1], "no indices", "as_array")
  expect_refused(x[[1]], "no indices")
  expect_refused(x[1] <- 2, "no indices")
  expect_true(all.equal(x, float32(1:3)))
  expect_type(all.equal(x, float32(c(1, 2, 4))), "character")
  expect_type(all.equal(x, 1:3), "character")
})

test_that("large sizes are printed in full", {
  expect_identical(format(torch_zeros(0, 100000)), "[ CPUFloatType{0,100000} ]")
  expect_identical(capture.output(print(float32(1:3), n = 0))[1], "torch_tensor")
  expect_refused(print(float32(1:3), n = "a"), "n is \"a\"")
})

test_that("64-bit integers of other packages, which R sees as doubles, are refused", {
  expect_refused(torch_tensor(structure(1, class = "integer64")), "data")
})
