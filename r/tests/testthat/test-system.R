# The package in its process: interrupts, forks, threads, instruction sets, leaving.

some_layer <- function() {
  torch_manual_seed(70)
  nn_conv_transpose3d(5, 7, c(3, 4, 3), stride = 2, padding = 1)
}
some_input <- function() torch_randn(2, 5, 6, 7, 19)

# Forward, then both gradients, as bytes.
all_bytes <- function(m, x) {
  m$zero_grad()
  y <- m(x)
  dx <- m$backward(x, y$detach())
  list(bytes_of(y), bytes_of(dx), bytes_of(m$weight$grad), bytes_of(m$bias$grad))
}

isas <- function() {
  works <- function(isa) {
    with_variable("CONVT3D_ISA", isa, tryCatch({
      nnf_conv_transpose3d(array(1, c(1, 1, 1, 1)), array(1, rep(1, 5)))
      TRUE
    }, error = function(e) FALSE))
  }
  Filter(works, c("generic", "x86_avx2", "x86_avx512", "x86_amx"))
}

# What takes a single call some ten seconds: generic kernels, two threads, float64.
long_layer <- c(
  "Sys.setenv(CONVT3D_ISA = \"generic\")", "torch_set_num_threads(2)",
  "w <- torch_ones(64, 64, 9, 9, 9, dtype = torch_double())",
  "x <- torch_ones(1, 64, 64, 32, 32, dtype = torch_double())",
  "m <- nn_conv_transpose3d(64, 64, 9)$to(torch_double())",
  "dy <- torch_ones(1, 64, 72, 40, 40, dtype = torch_double())",
  "say <- function(...) { cat(..., \"\\n\"); flush(stdout()) }",
  "now <- function() format(as.double(Sys.time()), digits = 15)", "say(Sys.getpid())")

# Starts a child that says its process number, interrupts it, and reads the rest.
interrupt_child <- function(lines) {
  child <- pipe(child_command(c(long_layer, lines)), "r")
  on.exit(close(child))
  id <- as.integer(readLines(child, 1))
  Sys.sleep(0.7)
  sent <- as.double(Sys.time())
  tools::pskill(id, tools::SIGINT)
  said <- trimws(readLines(child)) # R says an empty line when it is interrupted
  list(sent = sent, said = said[nzchar(said)], ended = as.double(Sys.time()))
}

test_that("an interrupt ends a long call within a second, and the next is right", {
  skip_on_cran()
  result <- interrupt_child(c(
    "stopped <- tryCatch({", "  nnf_conv_transpose3d(x, w)", "  \"not at all\"",
    "}, interrupt = function(e) now())", "say(stopped)",
    "before <- proc.time()", "Sys.sleep(0.5)", "say(sum((proc.time() - before)[1:2]) < 0.2)",
    "y <- nnf_conv_transpose3d(array(2, c(1, 1, 1, 1)), array(3, rep(1, 5)), 1)",
    "say(c(y))", "torch_set_num_threads(2)",
    "say(sum(nnf_conv_transpose3d(array(1, c(1, 1, 2, 2, 2)), array(1, c(1, 1, 3, 3, 3)))))"))
  stopped <- suppressWarnings(as.double(result$said[1]))
  expect_false(is.na(stopped), label = result$said[1])
  expect_lt(stopped - result$sent, 1)
  expect_gt(stopped - result$sent, -0.01)
  expect_identical(result$said[-1], c("TRUE", "7", "216")) # first: no thread goes on
})

test_that("each gradient can be interrupted too, and adds nothing then", {
  skip_on_cran()
  of_weight <- paste0("convt3d:::backward_weight_into(m$layer, convt3d:::view_of(x), ",
                      "convt3d:::view_of(dy), convt3d:::view_of(w), NULL)")
  for (call in c("m$backward(x, dy)", of_weight)) {
    result <- interrupt_child(c(
      paste("stopped <- tryCatch({", call, "; \"not at all\" }, interrupt = function(e) now())"),
      "say(stopped)", "say(is.null(m$weight$grad), is.null(m$bias$grad))"))
    stopped <- suppressWarnings(as.double(result$said[1]))
    expect_false(is.na(stopped), label = paste(c(call, result$said), collapse = " "))
    expect_lt(stopped - result$sent, 1)
    expect_identical(result$said[2], "TRUE TRUE")
  }
})

test_that("an interrupt that nobody catches ends the script", {
  skip_on_cran()
  result <- interrupt_child(c("y <- nnf_conv_transpose3d(x, w)", "say(\"went on\")"))
  expect_lt(result$ended - result$sent, 3)
  expect_false(any(grepl("went on", result$said)))
})

test_that("children of parallel::mclapply() compute what the parent does", {
  skip_if_not_installed("parallel")
  m <- some_layer()
  x <- some_input()
  want <- all_bytes(m, x)
  got <- parallel::mclapply(1:4, function(i) all_bytes(m, x), mc.cores = 2)
  for (bytes in got) expect_identical(bytes, want)
  expect_identical(all_bytes(m, x), want)
  tensors <- parallel::mclapply(1:2, function(i) m(x)$detach(), mc.cores = 2)
  expect_identical(bytes_of(tensors[[2]]), want[[1]])
})

test_that("any number of threads gives the same bytes", {
  m <- some_layer()
  x <- some_input()
  on.exit(torch_set_num_threads(0))
  want <- NULL
  for (threads in c(1, 2, 3, 1)) {
    torch_set_num_threads(threads)
    got <- all_bytes(m, x)
    if (is.null(want)) want <- got
    expect_identical(got, want)
  }
  torch_set_num_threads(0)
  for (threads in c("1", "2")) {
    expect_identical(with_variable("CONVT3D_NUM_THREADS", threads, all_bytes(m, x)), want)
  }
})

test_that("the number of threads is what was asked for", {
  on.exit(torch_set_num_threads(0))
  with_variable("_R_CHECK_LIMIT_CORES_", "false", {
    expect_invisible(torch_set_num_threads(3))
    expect_identical(torch_get_num_threads(), 3L)
    torch_set_num_threads(0)
    with_variable("CONVT3D_NUM_THREADS", "5", expect_identical(torch_get_num_threads(), 5L))
    with_variable("CONVT3D_NUM_THREADS", "", {
      expect_identical(torch_get_num_threads(), convt3d_info()$cpus)
    })
  })
  with_variable("_R_CHECK_LIMIT_CORES_", "TRUE", {
    expect_identical(torch_get_num_threads(), 2L)
    torch_set_num_threads(8)
    expect_identical(torch_get_num_threads(), 2L)
    torch_set_num_threads(1)
    expect_identical(torch_get_num_threads(), 1L)
  })
})

test_that("every instruction set gives the same whole numbers", {
  set.seed(71)
  p <- problem(6, 9, c(3, 3, 20), c(3, 2, 4), c(2, 1, 3), 1, 0, 3, 1, "reflect", 2)
  x <- whole_numbers(input_shape(p))
  w <- whole_numbers(weight_shape(p))
  want <- oracle_forward(p, x, w)
  for (isa in isas()) {
    with_variable("CONVT3D_ISA", isa, {
      expect_identical(as_array(run_problem(p, float32(x), w)), want)
      expect_identical(run_problem(p, x, w), want)
      expect_identical(convt3d_info()$isa, isa)
    })
  }
  expect_true("generic" %in% isas())
})

test_that("variables that make no sense are errors, also after a plan was made", {
  m <- some_layer()
  x <- some_input()
  m(x)
  for (isa in c("nonsense", "x86", "GENERIC", strrep("a", 100))) {
    with_variable("CONVT3D_ISA", isa, expect_refused(m(x), "CONVT3D_ISA", substr(isa, 1, 20)))
  }
  torch_set_num_threads(0)
  with_variable("_R_CHECK_LIMIT_CORES_", "false", {
    for (threads in c("0", "-1", "two", "1000000", "2.5")) {
      with_variable("CONVT3D_NUM_THREADS", threads, {
        expect_refused(m(x), "CONVT3D_NUM_THREADS", threads)
      })
    }
  })
  expect_identical(all_bytes(m, x), all_bytes(m, x))
})

test_that("more shapes than there are kept plans", {
  m <- nn_conv_transpose3d(1, 1, 2, stride = 2)
  x <- torch_randn(1, 1, 2, 2, 90)
  y <- as_array(m(x))
  for (round in 1:2) {
    for (width in 1:90) {
      part <- float32(as_array(x)[, , , , seq_len(width), drop = FALSE])
      expect_identical(as_array(m(part)), y[, , , , seq_len(2 * width), drop = FALSE])
    }
  }
})

test_that("a NaN and an Inf reach their own outputs alone", {
  p <- problem(4, 4, c(3, 3, 5), c(3, 2, 3), c(2, 1, 2), 1, 0, 2, 1, "zeros", 2)
  x <- array(1, input_shape(p))
  w <- array(0.5, weight_shape(p))
  x[2, 3, 2, 1, 4] <- NaN
  x[1, 1, 1, 3, 2] <- Inf
  reached <- array(0, input_shape(p))
  reached[is.nan(x)] <- 1
  reached[is.infinite(x)] <- 2
  at <- oracle_forward(p, reached, array(1, weight_shape(p)))
  for (y in list(run_problem(p, x, w), as_array(run_problem(p, float32(x), w)))) {
    expect_identical(is.nan(y), at == 1)
    expect_identical(y == Inf & !is.nan(y), at == 2)
    expect_true(any(at == 1) && any(at == 2) && mean(is.finite(y)) > 0.5)
  }
  x[] <- 0
  w[1, 1, 1, 1, 1] <- Inf # 0 * Inf at real taps only
  y <- run_problem(p, x, w)
  expect_identical(sum(is.nan(y)), sum(is.nan(as_array(run_problem(p, float32(x), w)))))
  touched <- oracle_forward(p, x + 1, array(as.double(is.infinite(w)), dim(w)))
  expect_identical(is.nan(y), touched > 0)
  huge <- array(1e300, c(1, 1, 1, 1, 1))
  expect_identical(c(nnf_conv_transpose3d(huge, -huge)), -Inf)
  expect_identical(nnf_conv_transpose3d(float32(huge / 1e270), -huge / 1e270)$item(), -Inf)
})

test_that("the namespace can be left and loaded again", {
  skip_on_cran()
  said <- run_child(c(
    "x <- array(2, c(1, 1, 2, 2, 2))", "w <- array(3, rep(1, 5))",
    "for (i in 1:3) {", "  y <- convt3d::nnf_conv_transpose3d(x, w)",
    "  convt3d::torch_manual_seed(1)", "  z <- convt3d::nn_conv_transpose3d(1, 1, 2)",
    "  rm(z)", "  unloadNamespace(\"convt3d\")", "  gc()",
    "  cat(sum(y), \"convt3d\" %in% loadedNamespaces(),",
    "      \"convt3d\" %in% names(getLoadedDLLs()), \"\\n\")", "}"), attach = FALSE)
  expect_null(attr(said, "status"))
  expect_identical(trimws(said), rep("48 FALSE FALSE", 3))
})

test_that("making layers leaves no memory behind", {
  skip_if_not(file.exists("/proc/self/status"))
  resident <- function() {
    gc()
    line <- grep("^VmRSS:", readLines("/proc/self/status"), value = TRUE)
    as.double(gsub("[^0-9]", "", line)) / 1024
  }
  m <- nn_conv_transpose3d(64, 64, 8, stride = 8) # 8 MiB
  nn_init_icnr_(m)
  before <- resident()
  for (i in 1:40) {
    nn_init_icnr_(m)
    gc() # else R's own garbage is what grows
  }
  expect_lt(resident() - before, 150)
})

test_that("convt3d_info() describes the installation", {
  info <- convt3d_info()
  expect_identical(names(info), c("version", "cpu", "isa", "cpus", "threads"))
  expect_identical(info$version, as.character(utils::packageVersion("convt3d")))
  expect_true(info$isa %in% isas())
  expect_gte(info$cpus, 1L)
  expect_true(torch_is_installed())
})

test_that("a time limit is an error that can be caught, and the next call is right", {
  skip_on_cran()
  m <- nn_conv_transpose3d(32, 64, 5)
  x <- array(1, c(1, 32, 60, 60, 60))
  on.exit(setTimeLimit())
  start <- Sys.time()
  caught <- tryCatch({
    setTimeLimit(elapsed = 0.3, transient = TRUE)
    m(x)
    "not stopped"
  }, error = conditionMessage)
  setTimeLimit()
  expect_match(caught, "time limit")
  expect_lt(as.double(Sys.time() - start, units = "secs"), 3)
  small <- x[, , 1:2, 1:2, 1:2, drop = FALSE]
  expect_equal(m(small), as_array(m(torch_tensor(small))), tolerance = 1e-5)
})
