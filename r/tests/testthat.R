# Two threads at most, as CRAN asks for.
Sys.setenv(CONVT3D_NUM_THREADS = "2")

library(testthat)
library(convt3d)

test_check("convt3d")
