# data: what data/ holds, documented. data-raw/brain.R makes it.

#' A part of a head
#'
#' The middle of a magnetic resonance image (T1-weighted) of a human head: the
#' ventricles, the nuclei around them and some cortex, on voxels of 2 mm. It is
#' there to try layers on.
#'
#' The original is the average of 27 scans of one person, in the space of the
#' Montreal Neurological Institute, with voxels of 1 mm. Means of 2 x 2 x 2 of its
#' voxels were taken, rounded, and cut out. Nothing else was changed. The first
#' voxel's centre is at (-47.5, -66.5, -28.5) mm in that space. The left of the
#' volume (low first index) is the left of the person.
#'
#' @format An integer array with dimensions c(W, H, D) = c(48, 56, 48), the order of
#'   a NIfTI image: left to right, back to front, bottom to top. Voxels are cubes of
#'   2 mm; values are brightnesses from 0 to 192, in no unit.
#' @source The file ch2.nii.gz of MRIcron <https://github.com/neurolabusc/MRIcron>,
#'   as in Debian's package mricron-data. Copyright 2006-2010 Chris Rorden, under a
#'   BSD licence of three clauses; the original image is copyright (C) 1993-2009
#'   Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,
#'   McGill University. The file COPYRIGHTS of this package has the text of both
#'   (`system.file("COPYRIGHTS", package = "convt3d")`).
#' @references Holmes, Hoge, Collins, Woods, Toga and Evans (1998), Enhancement of MR
#'   images using registration for signal averaging, Journal of Computer Assisted
#'   Tomography 22(2), 324-333.
#' @examples
#' dim(brain)
#' image(brain[, , 24], col = grey.colors(256, 0, 1), asp = 56 / 48, axes = FALSE)
"brain"
