# Makes data/brain.rda: run in the folder r, as 'Rscript data-raw/brain.R'.
# Needs Debian's packages mricron-data and r-cran-rniftilib.
# SPDX-License-Identifier: MIT

# By its name: R since 4.1 doesn't find this package's methods any more.
read_volume <- function(path) Rniftilib::`[.nifti`(Rniftilib::nifti.image.read(path))

# Means of 2 x 2 x 2 voxels; an odd last plane is left out.
halve <- function(v) {
  half <- dim(v) %/% 2
  v <- v[seq_len(2 * half[1]), seq_len(2 * half[2]), seq_len(2 * half[3])]
  dim(v) <- c(2, half[1], 2, half[2], 2, half[3])
  apply(v, c(2, 4, 6), mean)
}

head <- halve(read_volume("/usr/share/mricron/templates/ch2.nii.gz"))
brain <- round(head[22:69, 30:85, 22:69])
storage.mode(brain) <- "integer"
stopifnot(dim(brain) == c(48, 56, 48), brain >= 0, brain <= 255)
save(brain, file = "data/brain.rda", compress = "xz")
