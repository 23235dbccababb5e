/* A driver without a GPU: memory is the host's, work is done at once. Built by test_cuda.py, loaded by cuda.bindings. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
typedef unsigned long long u64;
static int capturing;
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec*1e3+t.tv_nsec/1e6;}
static int number(const char*name,int otherwise){const char*s=getenv(name);return s?atoi(s):otherwise;}
int cuInit(unsigned f){return number("STUB_INIT",0);}
int cuDriverGetVersion(int*v){*v=number("STUB_VERSION",13000);return 0;}
int cuDeviceGetCount(int*n){*n=1;return 0;}
int cuDeviceGet(int*d,int o){*d=o;return 0;}
int cuDeviceGetName(char*s,int n,int d){strncpy(s,"Stub GPU",n);return 0;}
/* compute capability 9.0; memory pools */
int cuDeviceGetAttribute(int*v,int a,int d){*v=a==75?9:a==115?1:0;return 0;}
int cuDevicePrimaryCtxRetain(void**c,int d){*c=(void*)0x7f0012345678;return 0;}
int cuDevicePrimaryCtxRelease_v2(int d){return 0;}
int cuCtxSetCurrent(void*c){return c==(void*)0x7f0012345678?0:201;}
int cuCtxGetCurrent(void**c){*c=(void*)0x7f0012345678;return 0;}
int cuCtxPushCurrent_v2(void*c){return 0;}
int cuCtxPopCurrent_v2(void**c){*c=(void*)0x7f0012345678;return 0;}
int cuCtxGetDevice(int*d){*d=0;return 0;}
int cuMemGetInfo_v2(size_t*f,size_t*t){*f=3ull<<30;*t=4ull<<30;return 0;}
int cuMemAllocHost_v2(void**p,size_t n){*p=malloc(n);return 0;}
int cuMemFreeHost(void*p){free(p);return 0;}
int cuDeviceGetDefaultMemPool(void**p,int d){*p=(void*)0x7f0012340000;return 0;}
int cuDeviceGetMemPool(void**p,int d){*p=(void*)0x7f0012340000;return 0;}
int cuMemGetMemPool(void**p,void*l,int t){*p=(void*)0x7f0012340000;return 0;}
int cuMemPoolCreate(void**p,void*x){*p=(void*)0x7f0012340000;return 0;}
int cuMemPoolDestroy(void*p){return 0;}
int cuMemPoolGetAttribute(void*p,int a,void*v){*(u64*)v=~0ull;return 0;}
int cuMemPoolSetAttribute(void*p,int a,void*v){return 0;}
int cuMemAllocFromPoolAsync(u64*p,size_t n,void*pool,void*s){if(n>(1ull<<32))return 2;*p=(u64)malloc(n);return 0;}
int cuMemFreeAsync(u64 p,void*s){free((void*)p);return 0;}
int cuMemFree_v2(u64 p){free((void*)p);return 0;}
int cuMemcpyAsync(u64 d,u64 s,size_t n,void*st){memcpy((void*)d,(void*)s,n);return 0;}
int cuMemcpyHtoDAsync_v2(u64 d,void*s,size_t n,void*st){memcpy((void*)d,s,n);return 0;}
int cuMemcpyDtoHAsync_v2(void*d,u64 s,size_t n,void*st){memcpy(d,(void*)s,n);return 0;}
int cuPointerGetAttributes(unsigned n,void*a,void**v,u64 p){return 0;}
int cuStreamCreate(void**s,unsigned f){*s=malloc(8);return f==1?0:1;}
int cuStreamCreateWithPriority(void**s,unsigned f,int p){*s=malloc(8);return f==1?0:1;}
int cuCtxGetStreamPriorityRange(int*a,int*b){*a=*b=0;return 0;}
int cuStreamGetCtx(void*s,void**c){*c=(void*)0x7f0012345678;return 0;}
int cuStreamSynchronize(void*s){return 0;}
int cuStreamDestroy_v2(void*s){free(s);return 0;}
int cuStreamBeginCapture_v2(void*s,unsigned m){capturing=1;return 0;}
/* none, active, invalidated */
int cuStreamIsCapturing(void*s,int*c){*c=capturing;return 0;}
int cuStreamGetCaptureInfo_v2(void*s,int*c,u64*i,void**g,void*a,void*b){*c=capturing;if(g)*g=(void*)0x7f0012340008;return 0;}
int cuStreamGetCaptureInfo_v3(void*s,int*c,u64*i,void**g,void*a,void*e,void*b){*c=capturing;if(g)*g=(void*)0x7f0012340008;return 0;}
/* for tests: something on the stream cannot be captured */
void stub_invalidate(void){if(capturing)capturing=2;}
int cuStreamEndCapture(void*s,void**g){int was=capturing;capturing=0;if(g)*g=(void*)0x7f0012340008;return was==2?901:0;}
int cuUserObjectCreate(void**o,void*p,void*d,unsigned n,unsigned f){*o=(void*)0x7f0012340010;return 0;}
int cuUserObjectRelease(void*o,unsigned n){return 0;}
int cuGraphRetainUserObject(void*g,void*o,unsigned n,unsigned f){return 0;}
int cuGraphReleaseUserObject(void*g,void*o,unsigned n){return 0;}
int cuGraphInstantiateWithFlags(void**e,void*g,u64 f){*e=malloc(8);return f;}
int cuGraphInstantiateWithParams(void**e,void*g,void*p){*e=malloc(8);return 0;}
int cuGraphLaunch(void*e,void*s){return 0;}
int cuGraphExecDestroy(void*e){free(e);return 0;}
int cuGraphDestroy(void*g){return 0;}
int cuEventCreate(void**e,unsigned f){*e=malloc(sizeof(double));return f==0?0:1;}
int cuEventDestroy_v2(void*e){free(e);return 0;}
int cuEventRecord(void*e,void*s){*(double*)e=now();return 0;}
int cuEventSynchronize(void*e){return 0;}
int cuEventElapsedTime(float*m,void*a,void*b){*m=*(double*)b-*(double*)a;return 0;}
int cuEventElapsedTime_v2(float*m,void*a,void*b){*m=*(double*)b-*(double*)a;return 0;}
int cuGetErrorName(int s,const char**t){*t=s==2?"CUDA_ERROR_OUT_OF_MEMORY":s==100?"CUDA_ERROR_NO_DEVICE":"CUDA_ERROR_STUB";return 0;}
int cuGetErrorString(int s,const char**t){*t="stub error";return 0;}
/* The newest variant of a function under its plain name, as the driver gives it. */
int cuGetProcAddress_v2(const char*name,void**f,int version,u64 flags,int*found){
  char full[128];void*own=dlopen("libcuda.so.1",RTLD_NOW|RTLD_NOLOAD);
  const char*ends[]={"_v3","_v2",""};
  *f=NULL;
  for(int i=0;i<3&&!*f;i++){strcpy(full,name);strcat(full,ends[i]);*f=dlsym(own,full);}
  if(getenv("STUB_TRACE")&&!*f){write(2,name,strlen(name));write(2," missing\n",9);}
  if(found)*found=*f?0:1;
  return *f?0:500;
}
