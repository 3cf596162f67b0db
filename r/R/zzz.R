# zzz: the package as a whole, and the package torch beside it.

#' convt3d: the transposed 3-D convolution layer, without a runtime
#'
#' [nn_conv_transpose3d()] is the layer, [nnf_conv_transpose3d()] the same as a
#' function; [torch_tensor()] and [autograd] are what it takes to train one, and
#' `vignette("upsampling")` does so.
#'
#' Many names are those of the package torch, so that its code runs unchanged. Where
#' torch is installed too, attaching either of the two says which functions mask
#' which. `convt3d::nn_conv_transpose3d()` and `torch::nn_conv_transpose3d()` are
#' always there side by side; tensors of one are not tensors of the other, but
#' `as_array()` of both gives an array for the other.
#'
#' @keywords internal
"_PACKAGE"

# What this package exports and torch does too.
shared_with_torch <- function() {
  sort(intersect(getNamespaceExports("convt3d"), getNamespaceExports("torch")))
}

say_masked <- function(by, from) {
  names <- paste0(shared_with_torch(), "()")
  text <- paste0(by, " masks these functions of ", from, ": ", paste(names, collapse = ", "),
                 ". Write ", from, "::", names[1], " for ", from, "'s own.")
  packageStartupMessage(paste(strwrap(text), collapse = "\n"))
}

# In the place of the one that an earlier attaching left.
hook_on_torch <- function() {
  event <- packageEvent("torch", "attach")
  hook <- structure(function(...) {
    if ("package:convt3d" %in% search()) say_masked("torch", "convt3d")
  }, class = "convt3d_hook")
  others <- Filter(function(other) !inherits(other, "convt3d_hook"), getHook(event))
  setHook(event, c(others, hook), "replace")
}

# torch's as_array() is a generic: where it masks this package's, it finds this method.
#' @exportS3Method torch::as_array
as_array.convt3d_tensor <- function(x) as_array(x)

.onAttach <- function(libname, pkgname) {
  if ("package:torch" %in% search()) {
    say_masked("convt3d", "torch")
  } else if (nzchar(system.file(package = "torch"))) {
    hook_on_torch()
    packageStartupMessage("The package torch is installed as well. Whichever of torch and ",
                          "convt3d is attached last masks\nfunctions of the other; convt3d:: and ",
                          "torch:: reach both.")
  }
}

.onUnload <- function(libpath) library.dynam.unload("convt3d", libpath)
