# Included by CMake right after llama-cpp-python's project(): see scripts/install.sh.
# llama-cpp-python forces llama.cpp's `common` library (command-line tools, HTTP client, chat parsers) into the build,
# although the Python package loads libllama and libggml alone. A normal variable outranks the forced cache entry.
set(LLAMA_BUILD_COMMON OFF)

# Attention and products with a few tokens on the CPU by files of medmind beside this one, which ggml-cpu.c calls in the
# place of llama.cpp's own: for that file alone their names stand for the others. Nothing of llama.cpp is changed.
set(MEDMIND_SCRIPTS "${CMAKE_CURRENT_LIST_DIR}")
function(medmind_kernels)
    get_target_property(home ggml-cpu SOURCE_DIR)
    set_property(SOURCE "${home}/ggml-cpu/ggml-cpu.c" DIRECTORY "${home}" "${CMAKE_CURRENT_SOURCE_DIR}"
        APPEND PROPERTY COMPILE_DEFINITIONS
        ggml_compute_forward_flash_attn_ext=medmind_compute_forward_flash_attn_ext
        ggml_compute_forward_mul_mat_tiled=medmind_compute_forward_mul_mat_tiled
        ggml_cpu_extra_compute_forward=medmind_extra_compute_forward
        llamafile_sgemm=medmind_sgemm)
    target_sources(ggml-cpu PRIVATE
        "${MEDMIND_SCRIPTS}/llama_attention.cpp" "${MEDMIND_SCRIPTS}/llama_few_rows.cpp"
        "${MEDMIND_SCRIPTS}/llama_few_rows_q8_0.cpp" "${MEDMIND_SCRIPTS}/llama_few_rows_k.cpp")
endfunction()

# libggml-cpu once more, for CPUs that have more than the usual build asks for: into lib/avx512, with a file `cpu-flags`
# that tells what it needs, by Linux' names; medmind/llama.py takes what suits the CPU at hand. llama.cpp's own way to
# the same (GGML_BACKEND_DL with GGML_CPU_ALL_VARIANTS) builds fourteen, and looks for them in the working directory too.
# AVX-VNNI and bf16 units add too little to be worth builds of their own (measured on a Xeon and an EPYC).
function(medmind_cpu_library folder)
    set(target ggml-cpu-${folder})
    get_target_property(home ggml-cpu SOURCE_DIR)
    get_target_property(sources ggml-cpu SOURCES)
    set(files "")
    foreach(source IN LISTS sources)
        cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${home}")
        list(APPEND files "${source}")
    endforeach()
    find_package(OpenMP QUIET) # what ggml found is known in its own folder alone
    add_library(${target} SHARED ${files})
    foreach(property COMPILE_DEFINITIONS COMPILE_FEATURES COMPILE_OPTIONS INCLUDE_DIRECTORIES LINK_LIBRARIES SOVERSION)
        get_target_property(value ggml-cpu ${property})
        if(NOT value MATCHES "NOTFOUND$")
            set_target_properties(${target} PROPERTIES ${property} "${value}")
        endif()
    endforeach()
    get_directory_property(definitions DIRECTORY "${home}" COMPILE_DEFINITIONS)
    target_compile_definitions(${target} PRIVATE ${definitions})
    list(TRANSFORM ARGN REPLACE "_" "" OUTPUT_VARIABLE options) # GCC's names
    list(TRANSFORM options PREPEND "-m")
    target_compile_options(${target} PRIVATE ${options})
    set(built "${CMAKE_BINARY_DIR}/${folder}")
    set_target_properties(${target} PROPERTIES
        OUTPUT_NAME ggml-cpu
        LIBRARY_OUTPUT_DIRECTORY "${built}"
        BUILD_WITH_INSTALL_RPATH TRUE
        INSTALL_RPATH "$ORIGIN/..")
    list(JOIN ARGN " " flags)
    file(WRITE "${built}/cpu-flags" "${flags}\n")
    set(place "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib/${folder}")
    install(TARGETS ${target} LIBRARY DESTINATION "${place}" NAMELINK_SKIP)
    install(FILES "${built}/cpu-flags" DESTINATION "${place}")
endfunction()

function(medmind_cpu_libraries)
    # scripts/install.sh looks here whether what is installed was made of these files; without medmind's kernels too, as
    # where LLAMA_CMAKE_ARGS asks for all of llama.cpp's own builds.
    file(WRITE "${CMAKE_BINARY_DIR}/medmind-build" "${MEDMIND_BUILD}\n")
    install(FILES "${CMAKE_BINARY_DIR}/medmind-build" DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib")
    if(TARGET ggml-cpu)
        medmind_kernels()
    endif()
    if(MEDMIND_AVX512 AND TARGET ggml-cpu AND NOT GGML_NATIVE AND NOT GGML_BACKEND_DL)
        medmind_cpu_library(avx512 avx512f avx512cd avx512vl avx512dq avx512bw avx512vbmi avx512_vnni)
    endif()
endfunction()

cmake_language(DEFER CALL medmind_cpu_libraries)
