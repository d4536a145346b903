# amstel_find_torch(FLOOR): sets TORCH_ROOT and TORCH_VERSION to the torch of Python_EXECUTABLE, found
# without importing it and without its CMake package. In an isolated build, which hides what is
# installed, it is that of the environment that pip installs into (cmake/backend.py).
find_package(Python COMPONENTS Interpreter REQUIRED)

function(amstel_find_torch floor)
  set(script [[
import importlib.util, pathlib, re, sysconfig
spec = importlib.util.find_spec("torch")
roots = [pathlib.Path(spec.origin).parent] if spec and spec.origin else []
roots += [pathlib.Path(sysconfig.get_path(name)) / "torch" for name in ("purelib", "platlib")]
root = next((r for r in roots if (r / "version.py").is_file()), None)
if root is None:
    raise SystemExit("no torch in " + ", ".join(str(r.parent) for r in roots))
version = re.search(r"__version__ = '([^']+)'", (root / "version.py").read_text()).group(1)
print(root, version, sep=";", end="")
]])
  execute_process(COMMAND ${Python_EXECUTABLE} -c "${script}"
                  OUTPUT_VARIABLE found RESULT_VARIABLE failed ERROR_VARIABLE reason)
  if(failed)
    message(FATAL_ERROR "amstel needs torch >= ${floor} in the Python that builds with it (${Python_EXECUTABLE}): ${reason}")
  endif()
  list(GET found 0 root)
  list(GET found 1 version)
  if(version VERSION_LESS floor)
    message(FATAL_ERROR "amstel needs torch >= ${floor}, found ${version} in ${root}")
  endif()
  set(TORCH_ROOT ${root} PARENT_SCOPE)
  set(TORCH_VERSION ${version} PARENT_SCOPE)
endfunction()
