# convt3d_io: the file formats of the command, and the libraries behind them.
# Linked into the command and the tests, never installed.
# SPDX-License-Identifier: MIT
find_package(PNG REQUIRED)
find_package(ZLIB REQUIRED)

# These two come without a CMake package that is the same on every system.
find_path(JANSSON_INCLUDE_DIR jansson.h)
find_library(JANSSON_LIBRARY jansson)
find_path(NIFTI_INCLUDE_DIR nifti2_io.h PATH_SUFFIXES nifti)
find_library(NIFTI2_LIBRARY nifti2)
find_library(ZNZ_LIBRARY znz)
foreach(part JANSSON_INCLUDE_DIR JANSSON_LIBRARY NIFTI_INCLUDE_DIR NIFTI2_LIBRARY ZNZ_LIBRARY)
  if(NOT ${part})
    message(FATAL_ERROR "${part} was not found: 'tools/install-deps.sh build' installs what is "
                        "needed, -DCONVT3D_BUILD_COMMAND=OFF builds the library alone")
  endif()
endforeach()

set(io_sources
    io/array.c io/convert.c io/fail.c io/link.c io/load.c io/nifti.c io/nifti_write.c io/npy.c
    io/png.c io/safetensors.c io/safetensors_write.c io/source.c io/space.c io/stream.c
    io/writer.c)
add_library(convt3d_io STATIC ${io_sources})
target_include_directories(convt3d_io PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/io)
# SYSTEM: warnings about other projects' headers are not ours to mend.
target_include_directories(convt3d_io SYSTEM PRIVATE ${JANSSON_INCLUDE_DIR} ${NIFTI_INCLUDE_DIR})
target_link_libraries(convt3d_io PRIVATE ${JANSSON_LIBRARY} ${NIFTI2_LIBRARY} ${ZNZ_LIBRARY}
                                         PNG::PNG ZLIB::ZLIB m PUBLIC convt3d_static)
