// Matrix products for llama.cpp's CPU backend, in the place of its own (see llama_build.cmake): weights in q8_0, q6_K
// and repacked q4_K by one to eight tokens, the next one and those guessed behind it. Weights are read once for all of
// these and fetched in time, and each token gets the bits that llama.cpp computes for a single one: its own products of
// several give others, or take as long as one by one. Everything else llama.cpp does.

#include "llama_few_rows.h"
#include "llamafile/sgemm.h"
#include "repack.h"
#include "tiled/tiled.h"
#include "traits.h"

#include <algorithm>
#include <atomic>
#include <type_traits>

extern "C" {

// Whether such products are computed here, and how many were.
GGML_BACKEND_API bool medmind_few_rows(void);
GGML_BACKEND_API uint64_t medmind_products(void);
bool medmind_extra_compute_forward(struct ggml_compute_params * params, struct ggml_tensor * op);
bool medmind_compute_forward_mul_mat_tiled(const struct ggml_compute_params * params, struct ggml_tensor * op);
bool medmind_sgemm(
    const struct ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * a, int64_t a_step,
    const void * b, int64_t b_step, void * c, int64_t c_step, int a_type, int b_type, int c_type);

} // extern "C"

namespace {

std::atomic<uint64_t> products = 0;

#ifdef MEDMIND_FEW_ROWS

void count(const struct ggml_compute_params * params) {
    if (params->ith == 0) {
        products.fetch_add(1, std::memory_order_relaxed);
    }
}

using namespace medmind;

bool multiplies(int weights, int tokens, int64_t count) {
    const bool known = (weights == GGML_TYPE_Q8_0 && tokens == GGML_TYPE_Q8_0) ||
                       (weights == GGML_TYPE_Q6_K && tokens == GGML_TYPE_Q8_K);
    return known && count <= MOST_TOKENS;
}

bool repacked(const struct ggml_tensor * op) {
    const struct ggml_tensor * weights = op->src[0], * tokens = op->src[1];
    return op->op == GGML_OP_MUL_MAT && weights->type == GGML_TYPE_Q4_K && weights->extra && weights->buffer &&
           weights->buffer->buft == ggml_backend_cpu_repack_buffer_type() && weights->ne[1] % 8 == 0 &&
           weights->ne[2] == 1 && tokens->type == GGML_TYPE_F32 && tokens->ne[1] <= MOST_TOKENS && tokens->ne[2] == 1 &&
           tokens->ne[3] == 1;
}

// As `forward_mul_mat` of repack.cpp: rows are shared out among threads as these get free.
void multiply_repacked(const struct ggml_compute_params * params, struct ggml_tensor * op) {
    const struct ggml_tensor * weights = op->src[0], * from = op->src[1];
    const int64_t blocks = from->ne[0] / QK_K;
    block_q8_K * tokens = (block_q8_K *) params->wdata;
    for (int64_t token = params->ith; token < from->ne[1]; token += params->nth) {
        const float * values = (const float *) ((const char *) from->data + token * from->nb[1]);
        ggml_get_type_traits_cpu(GGML_TYPE_Q8_K)->from_float(values, tokens + token * blocks, from->ne[0]);
    }
    const Product product = { weights->data, blocks, blocks, tokens, blocks, (int) from->ne[1],
                              (float *) op->data, (int64_t) (op->nb[1] / sizeof(float)) };
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    multiply_q4_k(product, Parts(params, weights->ne[1], 8, true));
}

#endif

} // namespace

extern "C" bool medmind_few_rows(void) {
#if defined(MEDMIND_FEW_ROWS) && defined(GGML_USE_LLAMAFILE)
    return true;
#else
    return false;
#endif
}

extern "C" uint64_t medmind_products(void) { return products; }

extern "C" bool medmind_extra_compute_forward(struct ggml_compute_params * params, struct ggml_tensor * op) {
#ifdef MEDMIND_FEW_ROWS
    if (repacked(op)) {
        count(params);
        multiply_repacked(params, op);
        return true;
    }
#endif
    return ggml_cpu_extra_compute_forward(params, op);
}

// Takes weights before their tokens are rounded; `medmind_sgemm` gets them afterwards.
extern "C" bool medmind_compute_forward_mul_mat_tiled(
        const struct ggml_compute_params * params, struct ggml_tensor * op) {
#if defined(MEDMIND_FEW_ROWS) && defined(GGML_USE_LLAMAFILE)
    // Only 32-bit numbers are rounded, and lie side by side then, however they lay before.
    if (op->src[1]->type == GGML_TYPE_F32 && multiplies(op->src[0]->type, GGML_TYPE_Q8_K, op->src[1]->ne[1])) {
        return false;
    }
#endif
    return ggml_compute_forward_mul_mat_tiled(params, op);
}

#if defined(GGML_USE_LLAMAFILE) // else nobody calls this, and there is nothing to leave anything to

static_assert(std::is_same_v<decltype(&medmind_sgemm), decltype(&llamafile_sgemm)>);

extern "C" bool medmind_sgemm(
        const struct ggml_compute_params * params, int64_t m, int64_t n, int64_t k, const void * a, int64_t a_step,
        const void * b, int64_t b_step, void * c, int64_t c_step, int a_type, int b_type, int c_type) {
#ifdef MEDMIND_FEW_ROWS
    if (multiplies(a_type, b_type, n) && c_type == GGML_TYPE_F32) {
        count(params);
        const Product product = { a, a_step, k, b, b_step, (int) n, (float *) c, c_step };
        // Tokens that ggml-cpu.c rounded lie where its memory begins, and it counts for these who takes which rows; but
        // not for further matrices of the same tensor.
        const bool counting = b == params->wdata;
        (a_type == GGML_TYPE_Q8_0 ? multiply_q8_0 : multiply_q6_k)(product, Parts(params, m, 2, counting));
        return true;
    }
#endif
    return llamafile_sgemm(params, m, n, k, a, a_step, b, b_step, c, c_step, a_type, b_type, c_type);
}

#endif
