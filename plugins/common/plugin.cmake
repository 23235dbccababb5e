# onnx_rewrite_plugin(NAME SOURCE...): a library of a plugin for the TensorRT whose headers are in TENSORRT_INCLUDE_DIR.
#
# TENSORRT_INCLUDE_DIR      the folder with NvInferRuntime.h (required); headers of every release are in the history of
#                           github.com/NVIDIA/TensorRT
# CMAKE_CUDA_ARCHITECTURES  which GPUs (default: sm_75 to sm_120, as far as the compiler knows them)
#
# No TensorRT library is linked: the plugin finds the one of its process.
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CUDA_STANDARD 17)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
if(NOT TENSORRT_INCLUDE_DIR OR NOT EXISTS "${TENSORRT_INCLUDE_DIR}/NvInferRuntime.h")
  message(FATAL_ERROR "-DTENSORRT_INCLUDE_DIR=DIR is needed: the folder with NvInferRuntime.h")
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # 90a has the instructions that only Hopper has; the last one also leaves code for GPUs to come.
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90a-real 100-real 120)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

function(onnx_rewrite_plugin name)
  add_library(${name} SHARED ${ARGN})
  target_include_directories(${name} SYSTEM PRIVATE ${TENSORRT_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(${name} PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
  set_target_properties(${name} PROPERTIES CUDA_RUNTIME_LIBRARY Static POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-deprecated-declarations>)
endfunction()
