// Everything that Holdfast needs, in one resource group: function app, storage, Redis, model, telemetry.
// No key exists anywhere: one user-assigned identity signs in to every service.
targetScope = 'subscription'

@description('Name of the environment; all names are made from it.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Region of everything. It must offer Flex Consumption, Azure Managed Redis and the model.')
param location string

@description('Model to deploy. Regions and models change: look at what yours offers.')
param modelName string = 'gpt-4.1-mini'

@description('Version of the model.')
param modelVersion string = '2025-04-14'

@description('Kind of model deployment.')
@allowed([
  'GlobalStandard'
  'DataZoneStandard'
  'Standard'
])
param modelSku string = 'GlobalStandard'

@description('Thousands of tokens a minute that the deployment may use.')
@minValue(1)
param modelCapacity int = 50

@description('Version of the data-plane API that the model is called with.')
param openAiApiVersion string = '2024-10-21'

@description('Size of Redis.')
param redisSku string = 'Balanced_B1'

@description('How Redis shares its keys out; modules/redis.bicep says what each means.')
@allowed([
  'EnterpriseCluster'
  'NoCluster'
  'OSSCluster'
])
param redisClusteringPolicy string = 'EnterpriseCluster'

@description('Memory of a function instance, MB.')
@allowed([
  512
  2048
  4096
])
param instanceMemoryMB int = 2048

@description('Most instances of the app.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 100

@description('HTTP requests that one instance holds at once; an open event stream is one.')
@minValue(1)
@maxValue(1000)
param httpConcurrency int = 100

@description('Instances that always run, for HTTP; 0: the first request waits for one to start.')
@minValue(0)
param alwaysReadyHttp int = 0

@description('Instances that always run, for jobs.')
@minValue(0)
param alwaysReadyJobs int = 0

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = {
  'azd-env-name': environmentName
}

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-${token}'
    location: location
    tags: tags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    principalId: identity.outputs.principalId
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'st${token}'
    location: location
    tags: tags
    principalId: identity.outputs.principalId
  }
}

module redis 'modules/redis.bicep' = {
  name: 'redis'
  scope: group
  params: {
    name: 'redis-${token}'
    location: location
    tags: tags
    skuName: redisSku
    clusteringPolicy: redisClusteringPolicy
    principalId: identity.outputs.principalId
  }
}

module openAi 'modules/openai.bicep' = {
  name: 'openai'
  scope: group
  params: {
    name: 'oai-${token}'
    location: location
    tags: tags
    modelName: modelName
    modelVersion: modelVersion
    skuName: modelSku
    capacity: modelCapacity
    principalId: identity.outputs.principalId
  }
}

module functions 'modules/functions.bicep' = {
  name: 'functions'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    identityId: identity.outputs.id
    clientId: identity.outputs.clientId
    blobEndpoint: storage.outputs.blobEndpoint
    queueEndpoint: storage.outputs.queueEndpoint
    deploymentContainer: storage.outputs.deploymentContainer
    queueName: storage.outputs.queueName
    redisUrl: redis.outputs.url
    openAiEndpoint: openAi.outputs.endpoint
    openAiApiVersion: openAiApiVersion
    modelDeployment: openAi.outputs.deployment
    telemetryConnectionString: monitoring.outputs.connectionString
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    httpConcurrency: httpConcurrency
    alwaysReadyHttp: alwaysReadyHttp
    alwaysReadyJobs: alwaysReadyJobs
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output GATEWAY_URL string = functions.outputs.url
output GATEWAY_FUNCTION_APP string = functions.outputs.name
output GATEWAY_STORAGE_ACCOUNT string = storage.outputs.name
output GATEWAY_REDIS_HOST string = redis.outputs.hostName
output AZURE_OPENAI_ENDPOINT string = openAi.outputs.endpoint
output APPLICATIONINSIGHTS_NAME string = monitoring.outputs.name
