# Random numbers are PyTorch's: parameters bit by bit, normal numbers but for rounding.

# 64 bits of FNV-1a in four limbs of 16 bits, as tools/make_golden.py hashes parameters.
fnv1a <- function(bytes) {
  h <- c(0x2325, 0x8422, 0x9ce4, 0xcbf2)
  for (byte in as.integer(bytes)) {
    low <- bitwXor(h[1], byte)
    # times 2^40 + 0x1b3
    products <- c(low, h[2:4]) * 435 + c(0, 0, low * 256, h[2] * 256)
    products[2] <- products[2] + products[1] %/% 65536
    products[3] <- products[3] + products[2] %/% 65536
    products[4] <- products[4] + products[3] %/% 65536
    h <- products %% 65536
  }
  paste(sprintf("%04x", as.integer(rev(h))), collapse = "")
}

# The lower 32 bits of a number in decimal digits: those that count for a seed.
lower_bits <- function(digits) {
  Reduce(function(value, digit) (value * 10 + digit) %% 2^32,
         as.double(strsplit(digits, "")[[1]]), 0)
}

seed_of <- function(digits) {
  if (as.double(digits) < 2^53) as.double(digits) else lower_bits(digits)
}

# A layer's next values in its own dtype; float64 ones are drawn anew.
next_module <- function(p) {
  if (!p$double) return(module_of(p, p$bias))
  nn_init_default_(spare[[p$name]])
}
spare <- new.env()

# Layers that give float64 values, or use up a number of draws, are made beforehand, since
# making one draws too.
make_spares <- function(problems) {
  for (p in problems) {
    if (p$double) assign(p$name, module_of(p, p$bias)$to(torch_double()), envir = spare)
  }
}

expect_hashes <- function(m, weight, bias, label) {
  expect_identical(fnv1a(bytes_of(m$weight)), weight, label = label)
  if (bias == "-") expect_null(m$bias)
  else expect_identical(fnv1a(bytes_of(m$bias)), bias, label = label)
}

test_that("the hash is FNV-1a", {
  expect_identical(fnv1a(raw()), "cbf29ce484222325")
  expect_identical(fnv1a(charToRaw("a")), "af63dc4c8601ec8c")
  expect_identical(fnv1a(charToRaw("foobar")), "85944171f73967e8")
})

test_that("layers start with PyTorch's values for every seed", {
  lines <- strsplit(golden_lines("init.txt"), " ", fixed = TRUE)
  problems <- lapply(lines, function(line) parse_problem(line[4]))
  small <- vapply(problems, function(p) prod(weight_shape(p)) < 1000, NA)
  make_spares(problems[small])
  for (i in which(small)) {
    torch_manual_seed(seed_of(lines[[i]][1]))
    expect_hashes(next_module(problems[[i]]), lines[[i]][2], lines[[i]][3],
                  paste(lines[[i]], collapse = " "))
  }
  expect_gt(sum(small), 80)
  expect_gt(sum(vapply(problems[small], `[[`, NA, "double")), 40)
})

test_that("the page's layer has PyTorch's values after torch_manual_seed()", {
  line <- strsplit(golden_lines("init.txt")[1], " ", fixed = TRUE)[[1]]
  expect_identical(line[4], "ci16co33i4k3s2:\"page\"")
  torch_manual_seed(0)
  expect_hashes(nn_conv_transpose3d(16, 33, 3, stride = 2), line[2], line[3], "the page's")
})

test_that("some layers agree in full", {
  tensors <- golden_tensors("init.safetensors")
  torch_manual_seed(42)
  m <- nn_conv_transpose3d(3, 4, c(3, 5, 2))
  expect_identical(as_array(m$weight), golden_array(tensors[["small_float32/weight"]]))
  expect_identical(as_array(m$bias), golden_array(tensors[["small_float32/bias"]]))
  m$to(torch_double())
  torch_manual_seed(42)
  nn_init_default_(m)
  expect_identical(as_array(m$weight), golden_array(tensors[["small_float64/weight"]]))
  expect_identical(as_array(m$bias), golden_array(tensors[["small_float64/bias"]]))
})

test_that("one stream serves layers and torch_randn() as in PyTorch", {
  lines <- strsplit(golden_lines("generator.txt"), " ", fixed = TRUE)
  normals <- lapply(golden_tensors("generator.safetensors"), golden_array)
  at <- c(float32 = 0, float64 = 0)
  kinds <- vapply(lines, `[`, "", 1)
  make_spares(lapply(lines[kinds == "module"], function(line) parse_problem(line[4])))
  drawers <- lapply(stats::setNames(1:9, 1:9), function(count) {
    lapply(list(float32 = torch_float(), float64 = torch_double()), function(dtype) {
      nn_conv_transpose3d(1, 1, c(1, 1, count), bias = FALSE)$to(dtype)
    })
  })
  for (line in lines) {
    label <- paste(line, collapse = " ")
    count <- if (line[1] %in% c("uniform", "normal")) as.double(line[3])
    if (line[1] == "seed") {
      torch_manual_seed(seed_of(line[2]))
    } else if (line[1] == "uniform") { # a layer's values take as many draws
      if (count > 0) nn_init_default_(drawers[[count]][[line[2]]])
    } else if (line[1] == "module") {
      expect_hashes(next_module(parse_problem(line[4])), line[2], line[3], label)
    } else {
      dtype <- if (line[2] == "float32") torch_float() else torch_double()
      got <- as_array(torch_randn(count, dtype = dtype))
      want <- normals[[paste0(line[2], "/normal")]][at[[line[2]]] + seq_len(count)]
      at[[line[2]]] <- at[[line[2]]] + count
      eps <- if (line[2] == "float32") 2^-23 else 2^-52
      expect_true(all(abs(got - want) <= 4 * eps * pmax(1, abs(want))), label = label)
    }
  }
  expect_equal(at[["float32"]], length(normals[["float32/normal"]]))
  expect_equal(at[["float64"]], length(normals[["float64/normal"]]))
})

test_that("a seed starts the stream anew, and only it", {
  draw <- function() {
    list(bytes_of(nn_conv_transpose3d(2, 3, 2)$weight), bytes_of(torch_randn(5)),
         bytes_of(nn_conv_transpose3d(1, 2, 3, bias = FALSE)$weight))
  }
  torch_manual_seed(7)
  first <- draw()
  again <- draw()
  set.seed(1)
  torch_manual_seed(7)
  expect_identical(draw(), first)
  set.seed(1)
  expect_identical(draw(), again)
  expect_false(identical(first, again))
  torch_manual_seed(2^32 + 7)
  expect_identical(draw(), first)
  torch_manual_seed(7 - 2^32)
  expect_identical(draw(), first)
  set.seed(1)
  draw()
  expect_identical(stats::runif(1), {
    set.seed(1)
    stats::runif(1)
  })
})

test_that("torch_randn() is standard normal", {
  torch_manual_seed(3)
  values <- as_array(torch_randn(20000))
  expect_lt(abs(mean(values)), 0.03)
  expect_lt(abs(stats::sd(values) - 1), 0.03)
})

test_that("defaults lie within their bound, in a layer of any dtype", {
  m <- nn_conv_transpose3d(6, 4, c(3, 2, 5), groups = 2)
  bound <- sqrt(2 / (4 * 30))
  values <- c(as_array(m$weight), as_array(m$bias))
  expect_true(all(abs(values) <= bound))
  expect_gt(max(abs(values)), 0.9 * bound)
  expect_true(m$weight$requires_grad && m$bias$requires_grad)
})

test_that("trilinear weights enlarge by linear interpolation", {
  m <- nn_conv_transpose3d(2, 2, 4, stride = 2, padding = 1, groups = 2,
                           padding_mode = "replicate")
  expect_identical(nn_init_trilinear_(m), m)
  places <- function(n) (seq_len(2 * n) - 0.5) / 2 + 0.5
  ramp <- function(d, h, w) outer(outer(2 * d, 3 * h, `+`), 5 * w, `+`)
  small <- ramp(1:3, 1:4, 1:5)
  clip <- function(n) pmin(pmax(places(n), 1), n)
  y <- m(array(rep(small, each = 2), c(2, 3, 4, 5)))
  for (channel in 1:2) expect_equal(y[channel, , , ], ramp(clip(3), clip(4), clip(5)))
  expect_identical(as_array(m$bias), c(0, 0))
  expect_refused(nn_init_trilinear_(nn_conv_transpose3d(2, 3, 4, stride = 2, padding = 1)),
                 "groups")
})

test_that("ICNR weights enlarge like nearest neighbour", {
  m <- nn_init_icnr_(nn_conv_transpose3d(3, 2, 2, stride = 2))
  y <- m(array(rnorm(3 * 27), c(3, 3, 3, 3)))
  odd <- c(1, 3, 5)
  expect_equal(y[, odd, odd, odd], y[, odd + 1, odd, odd + 1], tolerance = 1e-15)
  expect_equal(y[, odd, odd, odd], y[, odd, odd + 1, odd], tolerance = 1e-15)
  expect_gt(stats::sd(y[, odd, odd, odd]), 0)
  expect_refused(nn_init_icnr_(nn_conv_transpose3d(3, 2, 3, stride = 2)), "kernel_size")
  for (fill in list(nn_init_icnr_, nn_init_trilinear_, nn_init_default_)) {
    expect_refused(fill(nn_relu()), "module")
    expect_refused(fill(NULL), "module")
  }
})
