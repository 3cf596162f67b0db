# module: functions with a state. m(input) calls one, m$weight reads its state.

new_module <- function(class, forward, fields) {
  self <- list2env(fields, parent = emptyenv())
  self$training <- TRUE
  structure(forward, class = c(class, "convt3d_module"), self = self)
}

self_of <- function(module) attr(module, "self")
is_module <- function(x) inherits(x, "convt3d_module")

#' @export
`$.convt3d_module` <- function(x, name) {
  self <- self_of(x)
  if (exists(name, self, inherits = FALSE)) return(get(name, self))
  if (name == "parameters") return(distinct_parameters(x))
  method <- self$methods[[name]]
  if (is.null(method)) method <- module_methods[[name]]
  if (!is.null(method)) return(function(...) method(x, ...))
  refuse("a module of class ", class(x)[1], " has no '", name, "'")
}

#' @export
`$<-.convt3d_module` <- function(x, name, value) {
  # m$parameters$weight$grad <- NULL ends with such an assignment.
  if (name == "parameters" && identical(value, distinct_parameters(x))) return(x)
  parameter <- if (name %in% c("weight", "bias")) self_of(x)[[name]]
  if (is.null(parameter)) refuse("'", name, "' of a module can't be assigned to")
  if (!identical(value, parameter)) set_data(parameter, value, name)
  x
}

#' @export
.DollarNames.convt3d_module <- function(x, pattern = "") {
  self <- self_of(x)
  methods <- c(names(self$methods), names(module_methods))
  grep(pattern, c(setdiff(ls(self), "methods"), "parameters", paste0(methods, "(")), value = TRUE)
}

# Named as in PyTorch: "weight", or "0.weight" inside a sequence.  A layer that is there
# twice has all of its names here, and so in state_dict().
parameters_of <- function(module) {
  self <- self_of(module)
  if (is.null(self$children)) return(Filter(Negate(is.null), mget(c("weight", "bias"), envir = self,
                                                                  ifnotfound = list(NULL))))
  found <- lapply(self$children, function(child) if (is_module(child)) parameters_of(child))
  names(found) <- seq_along(found) - 1
  unlist(found)
}

# Each once, for optimisers and counts, under its first name.
distinct_parameters <- function(module) {
  parameters <- parameters_of(module)
  parameters[!duplicated(unname(parameters))]
}

module_methods <- list(
  state_dict = function(self) lapply(parameters_of(self), function(p) p$detach()),
  load_state_dict = function(self, state_dict) load_parameters(self, state_dict),
  train = function(self, mode = TRUE) set_training(self, flag(mode, "mode")),
  eval = function(self) set_training(self, FALSE),
  zero_grad = function(self) {
    for (p in parameters_of(self)) assign("grad", NULL, envir = p)
    invisible(self)
  },
  to = function(self, dtype) {
    name <- dtype_of(dtype, "float32")
    for (p in parameters_of(self)) {
      assign("data", as_dtype(p, name), envir = p)
      assign("grad", NULL, envir = p)
    }
    invisible(self)
  }
)

set_training <- function(module, mode) {
  self <- self_of(module)
  self$training <- mode
  for (child in self$children) if (is_module(child)) set_training(child, mode)
  invisible(module)
}

load_parameters <- function(module, state_dict) {
  parameters <- parameters_of(module)
  if (!setequal(names(state_dict), names(parameters)) || anyDuplicated(names(state_dict))) {
    refuse("state_dict has ", paste(names(state_dict), collapse = ", "), ", but must have ",
           paste(names(parameters), collapse = ", "))
  }
  for (name in names(parameters)) { # all of them fit, before the first is changed
    value <- state_dict[[name]]
    shape <- if (is_tensor(value)) field(value, "shape") else array_view(value, name, "torch")[[2]]
    same_shape(name, shape, field(parameters[[name]], "shape"))
  }
  for (name in names(parameters)) set_data(parameters[[name]], state_dict[[name]], name)
  invisible(module)
}

parameter_lines <- function(module) {
  parameters <- distinct_parameters(module)
  total <- sum(vapply(parameters, element_count, 0))
  c(vapply(names(parameters), function(name) {
    p <- parameters[[name]]
    paste0("  ", name, ": ", type_names[[dtype_name(p)]], " [",
           paste(dim(p), collapse = ", "), "]")
  }, ""), paste0("  ", format(total, big.mark = ",", scientific = FALSE), " parameters"))
}

#' @export
str.convt3d_module <- function(object, ...) {
  cat(" ", paste(format(object), collapse = "\n"), "\n", sep = "")
}

#' @export
print.convt3d_module <- function(x, ...) {
  cat(format(x), parameter_lines(x), sep = "\n")
  invisible(x)
}

# ---- Sequences ------------------------------------------------------------------------

#' Layers one after another
#'
#' @param ... modules or functions of one tensor, in their order.
#' @return A module: `m(input)` calls each with the result of the one before;
#'   `m[[1]]` is the first, and `m[[1]]$weight <- value` writes into it. `m$parameters`,
#'   `m$state_dict()`, `m$load_state_dict()`, `m$train()`, `m$eval()`, `m$zero_grad()` and
#'   `m$to(dtype)` are as for [nn_conv_transpose3d()], with PyTorch's names ("0.weight",
#'   counted from zero). Of a layer that is there twice `m$parameters` has the tensors
#'   once, under their first names; `m$state_dict()` has all names.
#' @examples
#' m <- nn_sequential(nn_conv_transpose3d(1, 4, 2, stride = 2), nn_relu(),
#'                    nn_conv_transpose3d(4, 1, 3, padding = 1))
#' m
#' dim(m(torch_randn(1, 1, 3, 3, 3)))
#' @export
nn_sequential <- function(...) {
  children <- unname(list(...))
  wrong <- which(!vapply(children, is.function, NA))
  if (length(wrong)) {
    refuse("argument ", wrong[1], " is ", show_value(children[[wrong[1]]]),
           ", but must be a module or a function")
  }
  forward <- function(input) {
    for (child in children) input <- child(input)
    input
  }
  new_module("nn_sequential", forward, list(children = children))
}

#' @export
`[[.nn_sequential` <- function(x, i) {
  self_of(x)$children[[whole(i, "the number of a layer", most = length(x))]]
}

# net[[1]]$weight <- value writes into the layer, and then assigns that layer here.
#' @export
`[[<-.nn_sequential` <- function(x, i, value) {
  if (!identical(x[[i]], value)) {
    refuse("layers of nn_sequential() can't be replaced, but only written into: make a new one")
  }
  x
}

#' @export
length.nn_sequential <- function(x) length(self_of(x)$children)

#' @export
format.nn_sequential <- function(x, ...) {
  lines <- vapply(self_of(x)$children, function(child) {
    if (is_module(child)) paste(format(child), collapse = "\n    ") else "a function"
  }, "")
  c("nn_sequential", if (length(lines)) paste0("  (", seq_along(lines) - 1, ") ", lines))
}

#' @rdname nnf_relu
#' @export
nn_relu <- function() new_module("nn_relu", function(input) nnf_relu(input), list())

#' @export
format.nn_relu <- function(x, ...) "nn_relu()"
