# threads: how many there are, and what this machine is.


# 0 leaves it to the library: CONVT3D_NUM_THREADS, else the CPUs there are.  While a
# package is checked, CRAN's limit of two holds.
thread_count <- function() {
  limited <- !tolower(Sys.getenv("_R_CHECK_LIMIT_CORES_", "false")) %in% c("", "false")
  if (!limited) return(as.integer(state$threads))
  2L - (state$threads == 1)
}

#' Threads
#'
#' `torch_set_num_threads()` sets how many threads the layer works on;
#' `torch_get_num_threads()` says how many that are. Results are the same bytes for
#' any number.
#'
#' Without a call the environment variable `CONVT3D_NUM_THREADS` decides, else all
#' CPUs that the process may use are busy. Under `R CMD check` there are two at
#' most. A process made by [parallel::mclapply()] may use the layer; give each a
#' part of the threads, or one.
#'
#' @param num_threads (int): from 1 to 1024; 0 goes back to the default.
#' @return `torch_get_num_threads()`: an integer. `torch_set_num_threads()`: NULL,
#'   invisibly.
#' @examples
#' torch_set_num_threads(2)
#' torch_get_num_threads()
#' torch_set_num_threads(0)
#' @export
torch_set_num_threads <- function(num_threads) {
  state$threads <- whole(num_threads, "num_threads", 0, most = 1024)
  invisible(NULL)
}

#' @rdname torch_set_num_threads
#' @export
torch_get_num_threads <- function() convt3d_info()$threads

#' What this installation is and chooses
#'
#' @return A list: `version`, the `cpu`'s name, the instruction set `isa` whose
#'   kernels run on it (the environment variable `CONVT3D_ISA` can force a lesser
#'   one), the number of `cpus` that the process may use, and of `threads`.
#' @examples
#' str(convt3d_info())
#' @export
convt3d_info <- function() {
  info <- .Call(C_info)
  forced <- Sys.getenv("CONVT3D_ISA")
  if (nzchar(forced)) info$isa <- forced
  wanted <- suppressWarnings(as.integer(Sys.getenv("CONVT3D_NUM_THREADS")))
  info$threads <- thread_count()
  if (info$threads == 0) info$threads <- if (is.na(wanted)) info$cpus else wanted
  info
}
