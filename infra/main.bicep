// Everything that Holdfast needs, in one resource group: function app, storage, Redis, model, telemetry.
// No key of a service is used or stored: one user-assigned identity signs in to each. Three kinds of secrets there
// are: the function keys, which the host makes, the key of stream tokens, which is made below, and that of webhooks, if you
// give one.
targetScope = 'subscription'

@description('Name of the environment; all names are made from it.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Region of everything: one of those with Flex Consumption. It must offer Azure Managed Redis and the model too.')
@allowed([
  'australiaeast'
  'australiasoutheast'
  'brazilsouth'
  'canadacentral'
  'centralindia'
  'centralus'
  'eastasia'
  'eastus'
  'eastus2'
  'francecentral'
  'germanywestcentral'
  'italynorth'
  'japaneast'
  'koreacentral'
  'northcentralus'
  'northeurope'
  'norwayeast'
  'southafricanorth'
  'southcentralus'
  'southeastasia'
  'southindia'
  'spaincentral'
  'swedencentral'
  'uaenorth'
  'uksouth'
  'ukwest'
  'westcentralus'
  'westeurope'
  'westus'
  'westus2'
  'westus3'
])
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('Model to deploy. Regions and models change: look at what yours offers.')
param modelName string = 'gpt-5.4-mini'

@description('Version of the model.')
param modelVersion string = '2026-03-17'

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

@description('Version of the data-plane API that the model is called with. v1 is the one without dates: every model has it, and it does not expire.')
param openAiApiVersion string = 'v1'

@description('Size of Redis.')
param redisSku string = 'Balanced_B1'

@description('How Redis shares its keys out; modules/redis.bicep says what each means.')
@allowed([
  'EnterpriseCluster'
  'NoCluster'
  'OSSCluster'
])
param redisClusteringPolicy string = 'EnterpriseCluster'

@description('Memory of a function instance, MB; it decides on the cores too: 512 has a quarter of one, 2048 one. With 512 the start takes four times as long (docs/deploy.md).')
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

@description('Instances that always run, for jobs. 0: the first job after an idle time waits until the platform has looked at the queue and started an instance, up to minutes. POSTs that are answered by their stream do not wait for it, as the instance that takes them runs their job; so the default costs nothing. Take 1 where others wait for tokens.')
@minValue(0)
param alwaysReadyJobs int = 0

@description('How a deployment replaces instances: RollingUpdate lets what runs end, Recreate kills it. Not every region knows RollingUpdate.')
@allowed([
  'RollingUpdate'
  'Recreate'
])
param siteUpdateStrategy string = 'RollingUpdate'

@description('Origins of web pages that may ask, by space: for the platform, which answers preflights itself, and for the app.')
param corsOrigins string = ''

@description('GATEWAY_CHAINS: modules of your own chains, by comma. They lie beside function_app.py.')
param chains string = ''

@description('GATEWAY_AUTH: jwt, easyauth (switch the Authentication of the app on first), or empty: who has a function key.')
@allowed([
  ''
  'easyauth'
  'jwt'
])
param auth string = ''

@description('GATEWAY_JWT_ISSUER, for jwt.')
param jwtIssuer string = ''

@description('GATEWAY_JWT_AUDIENCE, for jwt.')
param jwtAudience string = ''

@description('GATEWAY_DIRECT_START: stream, always or off.')
@allowed([
  'stream'
  'always'
  'off'
])
param directStart string = 'stream'

@description('GATEWAY_WORKER_CONCURRENCY: direct starts that one instance runs at once. Empty, here and below: the default of the product.')
param workerConcurrency string = ''

@description('GATEWAY_MAX_OWNER_STREAMS: streams of one caller that are not ended.')
param maxOwnerStreams string = ''

@description('GATEWAY_MAX_OWNER_STARTS_PER_MINUTE: streams that one caller may start in a minute.')
param maxOwnerStartsPerMinute string = ''

@description('GATEWAY_MAX_QUEUE_DEPTH: jobs queued or running, of all callers.')
param maxQueueDepth string = ''

@description('GATEWAY_MAX_RUN_SECONDS: how long a stream may run.')
param maxRunSeconds string = ''

@description('GATEWAY_MAX_OUTPUT_TOKENS: pieces of text that one attempt may say.')
param maxOutputTokens string = ''

@description('GATEWAY_RETENTION_SECONDS: how long an ended stream is kept.')
param retentionSeconds string = ''

@description('GATEWAY_WEBHOOK_KEYS: secrets from which each caller\'s own secret of webhooks is derived, by space, 32 characters at least. Empty: no webhooks.')
@secure()
param webhookKeys string = ''

@description('GATEWAY_WEBHOOK_HOSTS: hosts that webhooks may be sent to, by space. Empty: any public one.')
param webhookHosts string = ''

@description('GATEWAY_WEBHOOK_RETRY_SECONDS: pauses between the tries of a webhook, by space.')
param webhookRetrySeconds string = ''

@description('GATEWAY_PLANS_FILE: a JSON file with other limits for some callers; one beside function_app.py is /home/site/wwwroot/<its name>.')
param plansFile string = ''

@description('GATEWAY_MAX_OWNER_TOKENS_PER_DAY: tokens that one caller\'s streams may take in a day.')
param maxOwnerTokensPerDay string = ''

@description('GATEWAY_MAX_OWNER_TOKENS_PER_MINUTE: tokens that one caller\'s streams may take in a minute.')
param maxOwnerTokensPerMinute string = ''

@description('GATEWAY_LIST_METADATA: keys of metadata by which callers may filter their streams, by space.')
param listMetadata string = ''

@description('GATEWAY_SWEEP_SCHEDULE: when the timer looks for jobs that nobody holds; six fields, seconds first. Empty: every 15 seconds.')
param sweepSchedule string = ''

@description('GATEWAY_TOKEN_KEYS: what signs the tokens of streams, so that each instance takes those of the others. azd makes it once and keeps it with the environment. Several by space: the first signs, all verify.')
@secure()
@minLength(32)
@metadata({
  azd: {
    type: 'generate'
    config: {
      length: 48
      noSpecial: true
    }
  }
})
param tokenKeys string

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
    siteUpdateStrategy: siteUpdateStrategy
    corsOrigins: corsOrigins
    tokenKeys: tokenKeys
    sweepSchedule: sweepSchedule
    chains: chains
    auth: auth
    jwtIssuer: jwtIssuer
    jwtAudience: jwtAudience
    directStart: directStart
    workerConcurrency: workerConcurrency
    maxOwnerStreams: maxOwnerStreams
    maxOwnerStartsPerMinute: maxOwnerStartsPerMinute
    maxQueueDepth: maxQueueDepth
    maxRunSeconds: maxRunSeconds
    maxOutputTokens: maxOutputTokens
    retentionSeconds: retentionSeconds
    webhookKeys: webhookKeys
    webhookHosts: webhookHosts
    webhookRetrySeconds: webhookRetrySeconds
    plansFile: plansFile
    maxOwnerTokensPerDay: maxOwnerTokensPerDay
    maxOwnerTokensPerMinute: maxOwnerTokensPerMinute
    listMetadata: listMetadata
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output GATEWAY_URL string = functions.outputs.url
output GATEWAY_FUNCTION_APP string = functions.outputs.name
output GATEWAY_STORAGE_ACCOUNT string = storage.outputs.name
output GATEWAY_REDIS_HOST string = redis.outputs.hostName
output AZURE_OPENAI_ENDPOINT string = openAi.outputs.endpoint
output APPLICATIONINSIGHTS_NAME string = monitoring.outputs.name
