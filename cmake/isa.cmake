# One object library per CPU instruction set, all from the same torch-free sources, a file a stem;
# the choice is made at load time (csrc/cpu/isa.cpp).
set(AMSTEL_STEMS spmm conv_lstm conv_gru roi_pool roi_align rim mri winograd)
list(TRANSFORM AMSTEL_STEMS REPLACE "(.+)" "csrc/cpu/kernels/\\1.cpp" OUTPUT_VARIABLE kernel_sources)
set(AMSTEL_ONLY_ISAS "" CACHE STRING "Leave out instruction sets beside base that are not in this list; empty: all")
set(AMSTEL_ISAS base)
set(flags_base "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND AMSTEL_ISAS avx2 avx512)
  set(flags_base -march=x86-64-v2)
  set(flags_avx2 -march=x86-64-v3)
  set(flags_avx512 -march=x86-64-v4 -mprefer-vector-width=512)
endif()

# ROI align rounds every product, as torchvision does: its results have the same bits.
set_source_files_properties(csrc/cpu/kernels/roi_align.cpp csrc/cpu/roi_align_op.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)

foreach(isa ${AMSTEL_ISAS})
  if(AMSTEL_ONLY_ISAS AND NOT isa STREQUAL "base" AND NOT isa IN_LIST AMSTEL_ONLY_ISAS)
    list(REMOVE_ITEM AMSTEL_ISAS ${isa})
    continue()
  endif()
  add_library(amstel_${isa} OBJECT csrc/cpu/kernels/kernels.cpp ${kernel_sources})
  target_include_directories(amstel_${isa} PRIVATE csrc)
  target_compile_definitions(amstel_${isa} PRIVATE AMSTEL_ISA=${isa})
  # Contraction to FMA is what the kernels mean; errno and traps are not looked at.
  target_compile_options(amstel_${isa} PRIVATE ${flags_${isa}} -ffp-contract=fast -fno-math-errno -fno-trapping-math)
  list(APPEND AMSTEL_ISA_OBJECTS $<TARGET_OBJECTS:amstel_${isa}>)
  string(TOUPPER AMSTEL_HAS_${isa} definition)
  list(APPEND AMSTEL_ISA_DEFINITIONS ${definition})
endforeach()
