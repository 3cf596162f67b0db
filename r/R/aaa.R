# aaa: what changes while the package is loaded, in one place, and read first.

state <- new.env(parent = emptyenv())
state$threads <- 0      # 0: the library decides
state$last_id <- 0      # of a tensor
state$session <- new.env(parent = emptyenv()) # no tensor from a file or a process has this one
state$recording <- TRUE # whether operations leave nodes for backward()
